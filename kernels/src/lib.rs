//! The arithmetic of inference on slices; knows nothing of jobs or models.
