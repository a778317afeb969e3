/** What the compliance console asks of the server. Nothing here knows the page. */

import { Problem } from "./api.js";

/** A request that hangs in a dead network must give way to an answer. Checks and exports are jobs: none takes so long. */
const REQUEST_TIMEOUT_MS = 30_000;
/** A job's name that no job has: asked for, to learn whether a key is good, without a line in the audit. */
const NO_JOB = "00000000-0000-7000-8000-000000000000";

/**
 * @typedef {object} Found a recording, as searching tells it
 * @property {string} room
 * @property {string} profile
 * @property {string} office
 * @property {string} counter
 * @property {string} reason
 * @property {string | null} reference
 * @property {string} start
 * @property {string} end
 * @property {string | null} outcome
 * @property {{id: string, role: import("./types.js").Role, name: string}[]} participants
 * @property {"recording" | "recorded" | "sealing" | "sealed" | "failed" | "destroyed"} state
 * @property {number | null} sealing_percent
 * @property {string | null} begun
 * @property {string | null} ended
 * @property {string | null} sealed
 * @property {number} revision
 * @property {number} bytes
 * @property {string | null} manifest_sha256
 * @property {string | null} retain_until
 * @property {{reason: string, by: string, at: string} | null} hold
 * @property {string | null} destroyed
 * @property {string | null} destruction_note
 * @property {string | null} last_error
 */

/** @typedef {{id: string, token: string, expires: string}} Access */

/**
 * @typedef {object} Original
 * @property {string} file
 * @property {string | null} participant
 * @property {import("./types.js").Role} role
 * @property {import("./types.js").Source[]} sources
 * @property {{utc: string, mono_ms: number}} begin
 * @property {number} offset_ms
 * @property {number} duration_ms
 * @property {number} bytes
 * @property {boolean} complete
 */

/**
 * @typedef {object} Manifest
 * @property {string} node
 * @property {{name: string, version: string, build: string}} software
 * @property {{utc: string, mono_ms: number}} begin
 * @property {{utc: string, mono_ms: number}} end
 * @property {string} end_reason
 * @property {string | null} outcome
 * @property {string} sealed
 * @property {string} key_id
 * @property {boolean} encrypted
 * @property {{id: string, role: import("./types.js").Role, admitted_by: string | null, admitted: string | null, consent_text_version: string | null, consented: string | null, voice: {recorded_ms: number, speech_ms: number} | null}[]} participants
 * @property {Original[]} originals
 * @property {{begin: {utc: string, mono_ms: number}, duration_ms: number} | null} session_copy
 * @property {{from: string, to: string, length_ms: number}[]} presence
 * @property {{sha256: string, bytes: number, received: string, register_number: string | null}[]} documents
 * @property {{file: string | null, reason: string, tail_bytes: number}[]} recovery
 */

/** @typedef {{seq: number, wall: string, mono_ms: number, event: {type: string} & Record<string, unknown>}} LedgerLine */
/** @typedef {{seq: number, at: string, caller: string, action: string, reason: string, detail: Record<string, unknown>}} AuditLine */
/**
 * @typedef {object} Job
 * @property {string} id
 * @property {"verify" | "export_webm" | "export_mp4"} kind
 * @property {"queued" | "running" | "done" | "failed"} state
 * @property {number} progress_percent
 * @property {Record<string, unknown> | null} result
 * @property {string | null} error
 */

/** Somebody who may ask, by their API key or the token of their identity provider. */
export class Compliance {
  /** @param {string} key */
  constructor(key) {
    this.key = key;
  }

  /** Whether the key is good for this. @throws {Problem} */
  async check() {
    try {
      await this.#send("GET", `/v1/jobs/${NO_JOB}`);
    } catch (error) {
      if (!(error instanceof Problem && error.status === 404)) throw error;
    }
  }

  /**
   * @param {Record<string, unknown>} asked
   * @returns {Promise<{recordings: Found[], next_cursor: string | null}>}
   */
  async search(asked) {
    return (await this.#send("POST", "/v1/recordings/search", { json: asked })).json();
  }

  /** @param {string} room @param {string} reason @returns {Promise<Access>} */
  async open(room, reason) {
    return (await this.#send("POST", `/v1/recordings/${room}/accesses`, { json: { reason } })).json();
  }

  /** @param {string} job @returns {Promise<Job>} */
  async job(job) {
    return (await this.#send("GET", `/v1/jobs/${job}`)).json();
  }

  /**
   * One thing of a recording.
   * @param {string} method
   * @param {string} room
   * @param {string} what path below the recording
   * @param {{access?: Access, json?: unknown}} [request]
   * @returns {Promise<any>}
   */
  async ask(method, room, what, request) {
    const response = await this.#send(method, `/v1/recordings/${room}/${what}`, request);
    return response.status === 204 ? null : response.json();
  }

  /**
   * @param {string} method
   * @param {string} path
   * @param {{access?: Access, json?: unknown}} [request]
   */
  async #send(method, path, { access, json } = {}) {
    const headers = new Headers({ Authorization: `Bearer ${this.key}` });
    if (access) headers.set("Sportello-Access", access.token);
    if (json !== undefined) headers.set("Content-Type", "application/json");
    const body = json === undefined ? null : JSON.stringify(json);
    let response;
    try {
      const signal = AbortSignal.timeout(REQUEST_TIMEOUT_MS);
      response = await fetch(path, { method, headers, body, signal, cache: "no-store" });
    } catch {
      throw new Problem(0, { type: "/problems/unreachable" });
    }
    if (!response.ok) throw new Problem(response.status, await response.json().catch(() => ({})));
    return response;
  }
}

/**
 * The address of a file, for media elements and links: they send no headers, so the access stands in it.
 * @param {string} room
 * @param {Access} access
 * @param {string} what path below the recording
 * @param {Record<string, string>} [parameters]
 */
export function address(room, access, what, parameters = {}) {
  return `/v1/recordings/${room}/${what}?${new URLSearchParams({ ...parameters, access: access.token })}`;
}
