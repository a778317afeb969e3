// The real server in a process of its own, and its public API as a booking system uses it.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { createWriteStream, mkdirSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { fileURLToPath } from "node:url";

export const ROOT = fileURLToPath(new URL("../..", import.meta.url));
const TARGET = process.env.CARGO_TARGET_DIR || join(ROOT, "target");
export const BINARY = process.env.SPORTELLO_BIN || join(TARGET, "debug", "sportello");
export const LOADTEST = process.env.LOADTEST_BIN || join(TARGET, "debug", "loadtest");

/** A folder that stays after the tests, for whoever wants to know why one failed. */
export function artefacts(name) {
  const folder = join(process.env.ARTEFACTS || join(TARGET, "test-artefacts"), "browser", name);
  mkdirSync(folder, { recursive: true });
  return folder;
}

/** Longest wait for a start: a debug build opens its database on a busy machine. */
const LONGEST_START_MS = 15_000;

export class Server {
  /**
   * Starts `sportello serve`.
   * @param {object} options
   * @param {string} options.data data directory
   * @param {string} options.log file for what it says
   * @param {string} [options.binary] another copy of the binary
   * @param {{uid: number, gid: number}} [options.as] the user to run as
   * @param {boolean} [options.demo] start `sportello demo` instead
   * @param {Record<string, string>} [options.env] settings of this start
   */
  static async start({ data, log, binary = BINARY, as = {}, demo = false, env = {} }) {
    const args = demo ? ["demo", "--listen", "127.0.0.1:0", "--data-dir", data] : ["serve"];
    const child = spawn(binary, args, {
      cwd: data,
      stdio: ["ignore", "pipe", "pipe"],
      ...as,
      env: {
        ...process.env,
        SPORTELLO__HTTP__LISTEN: "127.0.0.1:0",
        SPORTELLO__MEDIA__FIRST_PORT: "0",
        SPORTELLO__STORAGE__DATA_DIR: data,
        // The tests look into the recordings.
        SPORTELLO__RECORDING__ENCRYPT: "false",
        ...env,
      },
    });
    const server = new Server(child);
    const file = createWriteStream(log);
    for (const stream of [child.stdout, child.stderr]) {
      stream.pipe(file, { end: false });
      stream.setEncoding("utf8").on("data", (text) => server.#read(text));
    }
    await server.#ready();
    return server;
  }

  constructor(child) {
    /** Where it listens, as it says itself. */
    this.url = null;
    this.child = child;
    this.said = "";
    /** API keys by scope, as printed at the first start. */
    this.keys = {};
    this.exit = null;
    child.on("exit", (code, signal) => {
      this.exit = signal ?? code;
    });
  }

  #read(text) {
    this.said += text;
    for (const [, scope, key] of this.said.matchAll(/(booking|operator|compliance|metrics) key: *(\S+)/g)) this.keys[scope] = key;
    this.url ??= this.said.match(/listening on (http:\S+)\n/)?.[1] ?? null;
  }

  async #ready() {
    const deadline = Date.now() + LONGEST_START_MS;
    while (Date.now() < deadline) {
      if (this.exit !== null) break;
      if (this.url && (await this.send("GET", "/healthz")).ok) return;
      await pause(50);
    }
    await this.stop();
    assert.fail(`the server did not start (exit ${this.exit}):\n${this.said}`);
  }

  get alive() {
    return this.exit === null;
  }

  /** Asks it to end, and makes it if it does not. */
  async stop() {
    if (!this.alive) return;
    const gone = once(this.child, "exit");
    this.child.kill("SIGTERM");
    const late = setTimeout(() => this.child.kill("SIGKILL"), 10_000);
    await gone;
    clearTimeout(late);
  }

  /** One request; gives the response as it is. */
  async send(method, path, { key, json, sdp } = {}) {
    const headers = {};
    if (key) headers.Authorization = `Bearer ${key}`;
    if (json !== undefined) headers["Content-Type"] = "application/json";
    if (sdp !== undefined) headers["Content-Type"] = "application/sdp";
    return fetch(this.url + path, { method, headers, body: sdp ?? (json === undefined ? undefined : JSON.stringify(json)) });
  }

  /** One request that must go well; gives its JSON. */
  async ask(method, path, request) {
    const response = await this.send(method, path, request);
    const text = await response.text();
    assert.ok(response.ok, `${method} ${path}: ${response.status} ${text}`);
    return text === "" ? null : JSON.parse(text);
  }

  /** Books a `delega` room that begins now; `names` by role. */
  async book(names, counter = "Deleghe") {
    const now = Date.now();
    const booked = await this.ask("POST", "/v1/rooms", {
      key: this.keys.booking,
      json: {
        profile: "delega",
        office: "Roma",
        counter,
        reason: "Delega dell'identità digitale",
        start: new Date(now).toISOString(),
        end: new Date(now + 30 * 60_000).toISOString(),
        participants: Object.entries(names).map(([role, name]) => ({ role, name })),
      },
    });
    const invitations = Object.fromEntries(booked.participants.map((invitation) => [invitation.role, invitation]));
    return { id: booked.room.id, invitations };
  }

  async room(id) {
    return this.ask("GET", `/v1/rooms/${id}`, { key: this.keys.booking });
  }

  async ledger(id) {
    return this.ask("GET", `/v1/rooms/${id}/ledger`, { key: this.keys.booking });
  }

  /** The metrics' samples, `name{labels}` to value. */
  async metrics() {
    const text = await (await this.send("GET", "/metrics", { key: this.keys.metrics })).text();
    const samples = text.split("\n").filter((line) => line && !line.startsWith("#")).map((line) => line.match(/^(.*) (\S+)$/));
    return Object.fromEntries(samples.map(([, name, value]) => [name, Number(value)]));
  }
}

/** Waits until `check` gives something, and gives that. */
export async function until(what, check, timeout = 10_000) {
  const deadline = Date.now() + timeout;
  for (;;) {
    const found = await check();
    if (found) return found;
    if (Date.now() > deadline) assert.fail(`not within ${timeout} ms: ${what}`);
    await pause(100);
  }
}
