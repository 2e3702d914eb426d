// Starts the real binary for a test. The counterpart of box.py.
import { spawn, execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

const root = join(dirname(fileURLToPath(import.meta.url)), "../..");
const PATIENCE_MS = 120_000;

export function modelPath() {
  return execFileSync(join(root, "scripts/fetch-model"), { encoding: "utf8" }).trim();
}

// Polls until `look` gives something true; only a hang reaches the deadline.
export async function waitFor(what, look) {
  for (const deadline = Date.now() + PATIENCE_MS; Date.now() < deadline; ) {
    const seen = await look();
    if (seen) return seen;
    await new Promise((done) => setTimeout(done, 20));
  }
  throw new Error(`gave up waiting for ${what}`);
}

export class Box {
  static async start(args, config = "") {
    const box = new Box();
    box.dir = mkdtempSync(join(tmpdir(), "switchbox-clients-"));
    box.data = join(box.dir, "data");
    const command = ["serve", "--listen", "127.0.0.1:0", "--data-dir", box.data, ...args];
    if (config) {
      writeFileSync(join(box.dir, "switchbox.toml"), config);
      command.push("--config", join(box.dir, "switchbox.toml"));
    }
    const binary = process.env.SWITCHBOX_BIN ?? join(root, "target/release/switchbox");
    box.process = spawn(binary, command, { stdio: ["ignore", "pipe", "inherit"] });
    for await (const line of createInterface({ input: box.process.stdout })) {
      box.base = line.replace(/^switchbox ready: /, "");
      break;
    }
    if (!box.base?.startsWith("http://")) throw new Error(`no ready line: ${box.base}`);
    box.key = box.read("api.key");
    await waitFor("readiness", async () => (await fetch(`${box.base}/readyz`)).ok);
    return box;
  }

  read(name) {
    return readFileSync(join(this.data, name), "utf8").trim();
  }

  // The sum over the samples of that name whose labels contain `label`.
  async metric(name, label = "") {
    const headers = { authorization: `Bearer ${this.read("admin.token")}` };
    const text = await (await fetch(`${this.read("admin.addr")}/metrics`, { headers })).text();
    const samples = text.split("\n").filter((l) => l.split(/[{ ]/)[0] === name && l.includes(label));
    return samples.reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(" "))), 0);
  }

  async waitIdle() {
    await waitFor("everything held to be given back", async () => !(await this.metric("switchbox_jobs")));
  }

  stop() {
    this.process.kill("SIGKILL");
    rmSync(this.dir, { recursive: true, force: true });
  }
}
