//! Worst cases: the longest turn when everything happens at once.
