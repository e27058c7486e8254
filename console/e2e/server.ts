/** A server of our own: on a free port, with an empty data directory, serving the console that was just built. */
import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

const here = path.dirname(fileURLToPath(import.meta.url));
const binary = path.resolve(here, "..", process.env.HOLON_BIN ?? "../target/debug/holon");
const consoleDirectory = path.resolve(here, "../dist");
const START_MS = 60_000;

export class Server {
  private constructor(
    readonly url: string,
    readonly adminToken: string,
    private readonly child: ChildProcess,
    private readonly directory: string,
  ) {}

  static async start(): Promise<Server> {
    if (!existsSync(binary)) throw new Error(`there is no server at ${binary}: build it with "cargo build -p holon"`);
    if (!existsSync(path.join(consoleDirectory, "index.html"))) {
      throw new Error('the console is not built: run "npm run build"');
    }
    const directory = await mkdtemp(path.join(tmpdir(), "holon-e2e-"));
    const data = path.join(directory, "data");
    const child = spawn(
      binary,
      ["serve", "--data", data, "--listen", "127.0.0.1:0", "--set", `console.dir=${consoleDirectory}`],
      { stdio: ["ignore", "pipe", "inherit"] },
    );
    const url = await listening(child);
    await ready(url);
    const adminToken = (await readFile(path.join(data, "admin.token"), "utf8")).trim();
    return new Server(url, adminToken, child, directory);
  }

  async stop(): Promise<void> {
    if (this.child.exitCode === null) {
      const exited = once(this.child, "exit");
      this.child.kill("SIGTERM");
      await exited;
    }
    await rm(this.directory, { recursive: true, force: true });
  }
}

async function listening(child: ChildProcess): Promise<string> {
  if (child.stdout === null) throw new Error("the server has no standard output");
  const lines = createInterface({ input: child.stdout });
  const timer = setTimeout(() => lines.close(), START_MS);
  try {
    for await (const line of lines) {
      const match = /listening on (http:\/\/\S+)/.exec(line);
      if (match?.[1] !== undefined) {
        // What else it prints is read and dropped, so that the pipe never fills.
        child.stdout.resume();
        return match[1];
      }
    }
  } finally {
    clearTimeout(timer);
  }
  child.kill("SIGKILL");
  throw new Error("the server did not say where it listens");
}

async function ready(url: string): Promise<void> {
  const deadline = Date.now() + START_MS;
  for (;;) {
    const answer = await fetch(`${url}/readyz`).catch(() => null);
    if (answer?.ok === true) return;
    if (Date.now() > deadline) throw new Error("the server did not become ready");
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}
