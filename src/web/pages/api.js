/** The server over HTTP and WebSocket. Nothing here knows the page. */

/** @typedef {import("./types.js").SessionView} SessionView */

/** A request that hangs in a dead network must give way to the next try. */
const REQUEST_TIMEOUT_MS = 10_000;
/** The largest document at some 200 kbit/s. Shorter would refuse slow uplinks; longer only hides a dead one. */
const UPLOAD_TIMEOUT_MS = 180_000;
/** First and longest pause between two tries to reach the server: short enough to be back soon, long enough not to storm it. */
const BACKOFF_FIRST_MS = 400;
const BACKOFF_LONGEST_MS = 8_000;
/** WebSocket close code: the session is over (removed, or opened on another device). */
const CLOSE_SESSION_ENDED = 4401;

/** What the server answered instead of what was asked (RFC 9457), or `unreachable` if it did not answer. */
export class Problem extends Error {
  /**
   * @param {number} status
   * @param {import("./types.js").ProblemBody} body
   */
  constructor(status, body) {
    super(body.detail ?? body.title ?? `HTTP ${status}`);
    this.status = status;
    this.body = body;
    /** Last part of the problem's type, e.g. `wrong-code`. */
    this.slug = (body.type ?? "").split("/").pop() || `http-${status}`;
  }

  /** Nobody answered, or the server was not able to: worth another try. */
  get passing() {
    return this.status === 0 || this.status === 429 || this.status >= 500;
  }
}

/**
 * @typedef {object} Request
 * @property {string} [token] session token
 * @property {unknown} [json] body
 * @property {string} [sdp] body of type application/sdp
 * @property {boolean} [keepalive] outlives the page
 */

/**
 * @param {string} method
 * @param {string} path
 * @param {Request} [request]
 * @returns {Promise<Response>}
 */
export async function send(method, path, request = {}) {
  const headers = new Headers();
  if (request.token) headers.set("Authorization", `Bearer ${request.token}`);
  let body;
  if (request.sdp !== undefined) {
    headers.set("Content-Type", "application/sdp");
    body = request.sdp;
  } else if (request.json !== undefined) {
    headers.set("Content-Type", "application/json");
    body = JSON.stringify(request.json);
  }
  const keepalive = request.keepalive ?? false;
  const signal = keepalive ? null : AbortSignal.timeout(REQUEST_TIMEOUT_MS);
  let response;
  try {
    response = await fetch(path, { method, headers, body, keepalive, signal, cache: "no-store" });
  } catch {
    throw new Problem(0, { type: "/problems/unreachable" });
  }
  if (!response.ok) throw new Problem(response.status, await problemBody(response));
  return response;
}

/** @param {Response} response @returns {Promise<import("./types.js").ProblemBody>} */
async function problemBody(response) {
  return parsedProblem(await response.text().catch(() => ""));
}

/** @param {string} text @returns {import("./types.js").ProblemBody} */
function parsedProblem(text) {
  try {
    const body = JSON.parse(text);
    return typeof body === "object" && body !== null ? body : {};
  } catch {
    return {};
  }
}

/**
 * What the link tells, before any code.
 * @param {string} joinToken
 * @returns {Promise<import("./types.js").Welcome>}
 */
export async function welcome(joinToken) {
  return (await send("GET", `/v1/join/${joinToken}`)).json();
}

/**
 * @param {string} joinToken
 * @param {string} code
 * @param {boolean} [takeOver] whether the person wants this device in the place of the one that they are in on
 * @returns {Promise<string>} session token
 */
export async function enterCode(joinToken, code, takeOver = false) {
  const response = await send("POST", `/v1/join/${joinToken}`, { json: { code, take_over: takeOver } });
  return (await response.json()).session_token;
}

/** One admitted person's session: what they may ask, and the events that tell them of every change. */
export class Session extends EventTarget {
  /** @param {string} token */
  constructor(token) {
    super();
    this.token = token;
    /** @type {SessionView | null} */
    this.view = null;
    /** Server's clock minus ours, milliseconds. */
    this.offset = 0;
    /** Slots of each connection, as last told: they may come before the connection's own answer.
     * @type {Map<string, import("./types.js").Slot[]>} */
    this.slots = new Map();
    /** @type {WebSocket | null} */
    this.socket = null;
    this.closed = false;
    this.tries = 0;
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    this.timer = undefined;
    // A socket does not notice that the network under it has changed.
    addEventListener("online", () => this.listen());
  }

  /** Server time now, milliseconds. */
  get now() {
    return Date.now() + this.offset;
  }

  /** @returns {Promise<SessionView>} */
  async load() {
    const view = await (await send("GET", "/v1/session", { token: this.token })).json();
    this.#show(view);
    return view;
  }

  /** @param {string} textVersion */
  async consent(textVersion) {
    await this.#post("/v1/session/consent", { text_version: textVersion });
    await this.load();
  }

  /** @param {{camera: boolean, microphone: boolean}} devices which of them work */
  async enter(devices) {
    await this.#post("/v1/session/enter", devices);
    await this.load();
  }

  async leave() {
    await this.#post("/v1/session/leave");
  }

  /**
   * Asks for a media connection.
   * @param {string} offer
   * @returns {Promise<{location: string, connection: string, answer: string}>}
   */
  async offerMedia(offer) {
    const response = await send("POST", "/v1/session/media", { token: this.token, sdp: offer });
    const location = new URL(response.headers.get("Location") ?? "", window.location.href).pathname;
    return { location, connection: location.split("/").pop() ?? "", answer: await response.text() };
  }

  /**
   * Ends a media connection; also while the page goes away.
   * @param {string} location
   */
  endMedia(location) {
    send("DELETE", location, { token: this.token, keepalive: true }).catch(() => {
      // The server notices by itself that nothing comes any more.
    });
  }

  /**
   * One of the operator's commands on their room.
   * @param {string} method
   * @param {string} what path below the room
   * @param {unknown} [json]
   */
  async command(method, what, json) {
    await send(method, `/v1/rooms/${this.view?.room.id}/${what}`, { token: this.token, json });
  }

  /**
   * Hands a document in. Only XMLHttpRequest tells how far an upload is.
   * @param {File} file
   * @param {(part: number) => void} progress 0 to 1
   * @returns {Promise<void>}
   */
  sendDocument(file, progress) {
    const form = new FormData();
    // Before the file: the server reads in order, and takes no file without it.
    form.append("conforms", "true");
    form.append("file", file, file.name);
    const request = new XMLHttpRequest();
    request.open("POST", "/v1/session/documents");
    request.setRequestHeader("Authorization", `Bearer ${this.token}`);
    request.responseType = "text";
    request.timeout = UPLOAD_TIMEOUT_MS;
    request.upload.addEventListener("progress", (event) => {
      if (event.lengthComputable) progress(event.loaded / event.total);
    });
    return new Promise((resolve, reject) => {
      const unreachable = () => reject(new Problem(0, { type: "/problems/unreachable" }));
      request.addEventListener("error", unreachable);
      request.addEventListener("timeout", unreachable);
      request.addEventListener("abort", unreachable);
      request.addEventListener("load", () => {
        if (request.status >= 200 && request.status < 300) resolve();
        else reject(new Problem(request.status, parsedProblem(request.responseText)));
      });
      request.send(form);
    });
  }

  /**
   * A document's bytes, or its receipt.
   * @param {string} id
   * @param {boolean} [receipt]
   * @returns {Promise<Blob>}
   */
  async fetchDocument(id, receipt = false) {
    const path = `/v1/session/documents/${id}${receipt ? "/receipt" : ""}`;
    return (await send("GET", path, { token: this.token })).blob();
  }

  /** @param {string} id */
  async deleteDocument(id) {
    await send("DELETE", `/v1/session/documents/${id}`, { token: this.token });
  }

  /**
   * The chat's messages after a number.
   * @param {number} after
   * @returns {Promise<import("./types.js").ChatMessage[]>}
   */
  async chatAfter(after) {
    const response = await send("GET", `/v1/session/chat?after=${after}`, { token: this.token });
    return (await response.json()).messages;
  }

  /**
   * @param {string} text
   * @returns {Promise<import("./types.js").ChatMessage>}
   */
  async sendChat(text) {
    return (await send("POST", "/v1/session/chat", { token: this.token, json: { text } })).json();
  }

  /** Begins to listen; comes back by itself when the line is cut. */
  listen() {
    if (this.closed) return;
    clearTimeout(this.timer);
    this.#drop();
    const address = new URL("/v1/session/events", location.href);
    address.protocol = location.protocol === "https:" ? "wss:" : "ws:";
    const socket = new WebSocket(address, ["sportello.v1", `bearer.${this.token}`]);
    this.socket = socket;
    socket.onmessage = (event) => this.#read(event.data);
    socket.onclose = (event) => {
      if (this.socket !== socket) return;
      this.socket = null;
      if (event.code === CLOSE_SESSION_ENDED) this.end();
      else this.#retry();
    };
  }

  /** The session is over, here or on the server. */
  end() {
    if (this.closed) return;
    this.close();
    this.dispatchEvent(new Event("ended"));
  }

  /** Stops listening. */
  close() {
    this.closed = true;
    clearTimeout(this.timer);
    this.#drop();
  }

  #drop() {
    const socket = this.socket;
    this.socket = null;
    socket?.close();
  }

  #retry() {
    this.dispatchEvent(new CustomEvent("line", { detail: false }));
    const pause = Math.min(BACKOFF_LONGEST_MS, BACKOFF_FIRST_MS * 2 ** this.tries);
    this.tries += 1;
    // Spread, so that a room does not come back all at once.
    this.timer = setTimeout(() => this.#reopen(), pause * (0.5 + Math.random() / 2));
  }

  /** A refused WebSocket does not say why; the session itself does. */
  async #reopen() {
    try {
      await this.load();
      this.listen();
    } catch (error) {
      // 429 is only ever said to a token that is not valid.
      if (error instanceof Problem && [401, 403, 429].includes(error.status)) this.end();
      else if (!this.closed) this.#retry();
    }
  }

  /** @param {string} text */
  #read(text) {
    /** @type {import("./types.js").SessionMessage | import("./types.js").SlotsMessage} */
    const message = JSON.parse(text);
    if (this.tries > 0) this.tries = 0;
    if (message.type === "session") {
      this.dispatchEvent(new CustomEvent("line", { detail: true }));
      this.#show(message.session);
    } else if (message.type === "slots") {
      this.slots.set(message.connection, message.slots);
      this.dispatchEvent(new Event("slots"));
    }
  }

  /** @param {SessionView} view */
  #show(view) {
    // An answer to a request may be older than the event that overtook it.
    if (this.view && Date.parse(view.now) < Date.parse(this.view.now)) return;
    this.view = view;
    this.offset = Date.parse(view.now) - Date.now();
    this.dispatchEvent(new Event("view"));
  }

  /**
   * @param {string} path
   * @param {unknown} [json]
   */
  async #post(path, json) {
    await send("POST", path, { token: this.token, json });
  }
}
