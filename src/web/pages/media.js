/**
 * Our one media connection: what we send, the slots in which we receive, and the way back when it breaks.
 *
 * The offer's m-lines, in order: microphone, camera, screen (all sendonly; the screen has no track until it is shared),
 * then the receive-only slots. The answer is final: who is in which slot is told over the session's events, never by
 * a new offer.
 */

import { Problem } from "./api.js";

/** @typedef {import("./types.js").Source} Source */
/** @typedef {"idle" | "connecting" | "connected" | "broken"} LinkState */

/** More slots than a room has other people only cost bytes in the offer; fewer would leave someone unseen. */
const AUDIO_SLOTS = 4;
const VIDEO_SLOTS = 4;
/** A connection that does not stand after this long is tried anew. Shorter would give up on slow phones. */
const CONNECT_TIMEOUT_MS = 8_000;
/** How long a silent connection may come back by itself: ICE often does. Longer leaves people frozen. */
const SILENCE_MS = 2_500;
/** The server has lost us while we believe to be connected. A moment, for the news that would mend it to arrive. */
const DISBELIEF_MS = 300;
const BACKOFF_FIRST_MS = 400;
const BACKOFF_LONGEST_MS = 8_000;
/** How often it is looked at how well media gets through, and from which share of lost packets on it is felt. */
const QUALITY_EVERY_MS = 2_000;
const WEAK_LOSS = 0.06;
/** Longer than this there and back, people begin to talk over each other. */
const WEAK_ROUND_TRIP_S = 0.6;
/** Looks in a row that must agree: a sign that flickers tells nothing. */
const WEAK_LOOKS = 2;
/** A face and a paper held up are readable at this rate; more would starve a weak uplink for nothing. */
const CAMERA_BITRATE = 1_000_000;
const SCREEN_BITRATE = 1_500_000;

/** Events: `state` (see `state`, `problem`, `quality`), `slots` (who is where changed). */
export class Media extends EventTarget {
  /**
   * @param {import("./api.js").Session} session
   * @param {import("./devices.js").Devices} devices
   */
  constructor(session, devices) {
    super();
    this.session = session;
    this.devices = devices;
    /** @type {RTCPeerConnection | null} */
    this.pc = null;
    /** @type {LinkState} */
    this.state = "idle";
    /** Why the last try failed. @type {Problem | null} */
    this.problem = null;
    /** @type {string | null} */
    this.location = null;
    this.connection = "";
    /** @type {MediaStreamTrack | null} */
    this.screen = null;
    /** @type {import("./types.js").Timings} */
    this.timings = { post: null, answer: null, connected: null, firstFrame: {} };
    this.wanted = false;
    this.tries = 0;
    /** Media has got through on this network before. */
    this.everConnected = false;
    /** The server has said that it sees this connection. */
    this.seen = false;
    /** How well it goes: our own packets get lost, or those of the others. @type {"good" | "sending" | "receiving"} */
    this.quality = "good";
    this.weakLooks = 0;
    /** @type {{received: number, lost: number}} */
    this.counted = { received: 0, lost: 0 };
    setInterval(() => void this.#measureQuality(), QUALITY_EVERY_MS);
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    this.timer = undefined;
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    this.disbelief = undefined;
    session.addEventListener("slots", () => this.dispatchEvent(new Event("slots")));
    session.addEventListener("view", () => this.#compare());
    devices.addEventListener("change", () => void this.#replaceTracks());
    addEventListener("online", () => this.#networkBack());
  }

  /** Connects, and stays connected until `stop`. */
  start() {
    if (this.wanted) return;
    this.wanted = true;
    this.tries = 0;
    void this.#connect();
  }

  /** @param {boolean} [gone] the server has ended the connection by itself */
  stop(gone = false) {
    this.wanted = false;
    this.stopSharing();
    this.#drop(gone);
    this.#become("idle");
  }

  /**
   * What arrives from someone.
   * @param {string} participant
   * @returns {Partial<Record<Source, MediaStreamTrack>>}
   */
  tracksOf(participant) {
    /** @type {Partial<Record<Source, MediaStreamTrack>>} */
    const tracks = {};
    if (!this.pc) return tracks;
    const byMid = new Map(this.pc.getTransceivers().map((transceiver) => [transceiver.mid, transceiver]));
    for (const slot of this.session.slots.get(this.connection) ?? []) {
      const track = slot.participant_id === participant && byMid.get(slot.mid)?.receiver.track;
      if (track) tracks[slot.source] = track;
    }
    return tracks;
  }

  /** Asks for a screen and sends it. */
  async shareScreen() {
    const stream = await navigator.mediaDevices.getDisplayMedia({ video: { frameRate: { ideal: 8, max: 15 } } });
    this.screen = stream.getVideoTracks()[0] ?? null;
    if (this.screen) {
      this.screen.contentHint = "detail";
      this.screen.addEventListener("ended", () => this.stopSharing());
    }
    await this.#replaceTracks();
    this.dispatchEvent(new Event("state"));
  }

  stopSharing() {
    if (!this.screen) return;
    this.screen.stop();
    this.screen = null;
    void this.#replaceTracks();
    this.dispatchEvent(new Event("state"));
  }

  async #connect() {
    this.#drop();
    this.#become("connecting");
    const pc = new RTCPeerConnection({ iceServers: this.session.view?.ice_servers ?? [], bundlePolicy: "max-bundle" });
    this.pc = pc;
    this.seen = false;
    const timings = { post: 0, answer: null, connected: null, firstFrame: {} };
    this.timings = timings;
    pc.onconnectionstatechange = () => this.#follow(pc);
    try {
      this.#addLines(pc);
      await pc.setLocalDescription();
      timings.post = performance.now();
      const { location, connection, answer } = await this.session.offerMedia(withRepairedVoice(pc.localDescription?.sdp ?? ""));
      if (this.pc !== pc) {
        this.session.endMedia(location);
        return;
      }
      this.timings.answer = performance.now();
      this.problem = null;
      this.location = location;
      this.connection = connection;
      await pc.setRemoteDescription({ type: "answer", sdp: answer });
      this.dispatchEvent(new Event("slots"));
      this.timer = setTimeout(() => this.#fail(pc), CONNECT_TIMEOUT_MS);
    } catch (error) {
      if (this.pc !== pc) return;
      this.problem = error instanceof Problem ? error : null;
      if (this.problem?.status === 401) this.session.end();
      // Not let in (any more): the next view tells, and whoever reads it starts us again.
      else if (this.problem?.status === 409) this.stop();
      else this.#fail(pc);
    }
  }

  /** @param {RTCPeerConnection} pc */
  #addLines(pc) {
    const { microphone, camera } = this.devices;
    pc.addTransceiver(microphone ?? "audio", { direction: "sendonly" });
    pc.addTransceiver(camera ?? "video", { direction: "sendonly", sendEncodings: [{ maxBitrate: CAMERA_BITRATE }] });
    pc.addTransceiver(this.screen ?? "video", {
      direction: "sendonly",
      sendEncodings: [{ maxBitrate: SCREEN_BITRATE }],
    });
    for (let slot = 0; slot < AUDIO_SLOTS; slot += 1) pc.addTransceiver("audio", { direction: "recvonly" });
    for (let slot = 0; slot < VIDEO_SLOTS; slot += 1) pc.addTransceiver("video", { direction: "recvonly" });
    for (const transceiver of pc.getTransceivers()) {
      transceiver.setCodecPreferences(codecs(transceiver.receiver.track.kind));
    }
  }

  /** @param {RTCPeerConnection} pc */
  #follow(pc) {
    if (this.pc !== pc) return;
    clearTimeout(this.timer);
    switch (pc.connectionState) {
      case "connected":
        this.tries = 0;
        this.problem = null;
        this.everConnected = true;
        this.timings.connected ??= performance.now();
        this.#become("connected");
        break;
      case "disconnected":
        this.#become("broken");
        this.timer = setTimeout(() => this.#fail(pc), SILENCE_MS);
        break;
      case "failed":
        this.#fail(pc);
        break;
      default:
        this.timer = setTimeout(() => this.#fail(pc), CONNECT_TIMEOUT_MS);
    }
  }

  /** Gives a connection up and tries another, later each time. @param {RTCPeerConnection} pc */
  #fail(pc) {
    if (this.pc !== pc || !this.wanted) return;
    this.#drop();
    this.#become("broken");
    const pause = this.tries === 0 ? 0 : Math.min(BACKOFF_LONGEST_MS, BACKOFF_FIRST_MS * 2 ** this.tries);
    this.tries += 1;
    this.timer = setTimeout(() => void this.#connect(), pause);
  }

  #networkBack() {
    if (!this.wanted || this.state === "connected") return;
    this.tries = 0;
    // It may be another network.
    this.everConnected = false;
    void this.#connect();
  }

  /** A server that started anew does not know us, and silence alone would tell us only after many seconds. */
  #compare() {
    const me = this.session.view?.participants.find((person) => person.id === this.session.view?.me.id);
    clearTimeout(this.disbelief);
    if (!me || !this.wanted || this.state !== "connected") return;
    if (me.connected) {
      this.seen = true;
    } else if (this.seen) {
      const pc = this.pc;
      this.disbelief = setTimeout(() => pc && this.#fail(pc), DISBELIEF_MS);
    }
  }

  async #replaceTracks() {
    const [microphone, camera, screen] = this.pc?.getTransceivers() ?? [];
    try {
      await Promise.all([
        microphone?.sender.replaceTrack(this.devices.microphone),
        camera?.sender.replaceTrack(this.devices.camera),
        screen?.sender.replaceTrack(this.screen),
      ]);
    } catch {
      // The connection was closed meanwhile; the next one takes the tracks as they are then.
    }
  }

  /** Tells a weak link apart from a good one by the browser's own counts. */
  async #measureQuality() {
    const pc = this.pc;
    if (!pc || this.state !== "connected") return this.#judge("good");
    let [received, lost, sendingLoss, roundTrip] = [0, 0, 0, 0];
    for (const stat of (await pc.getStats()).values()) {
      if (stat.type === "inbound-rtp") {
        received += stat.packetsReceived ?? 0;
        lost += stat.packetsLost ?? 0;
      } else if (stat.type === "remote-inbound-rtp") {
        sendingLoss = Math.max(sendingLoss, stat.fractionLost ?? 0);
        roundTrip = Math.max(roundTrip, stat.roundTripTime ?? 0);
      }
    }
    const before = this.counted;
    this.counted = { received, lost };
    const [more, missing] = [received - before.received, lost - before.lost];
    // Another connection counts from zero.
    const receivingLoss = more > 0 && missing > 0 ? missing / (more + missing) : 0;
    if (sendingLoss > WEAK_LOSS || roundTrip > WEAK_ROUND_TRIP_S) this.#judge("sending");
    else this.#judge(receivingLoss > WEAK_LOSS ? "receiving" : "good");
  }

  /** @param {Media["quality"]} quality */
  #judge(quality) {
    this.weakLooks = quality === "good" ? Math.max(0, this.weakLooks - 1) : Math.min(WEAK_LOOKS + 1, this.weakLooks + 1);
    const shown = this.weakLooks >= WEAK_LOOKS ? (quality === "good" ? this.quality : quality) : "good";
    if (shown === this.quality) return;
    this.quality = shown;
    this.dispatchEvent(new Event("state"));
  }

  #drop(gone = false) {
    clearTimeout(this.timer);
    clearTimeout(this.disbelief);
    if (this.pc) {
      this.pc.onconnectionstatechange = null;
      this.pc.close();
      this.pc = null;
    }
    if (this.location) {
      if (!gone) this.session.endMedia(this.location);
      this.session.slots.delete(this.connection);
      this.location = null;
      this.connection = "";
    }
    this.dispatchEvent(new Event("slots"));
  }

  /** @param {LinkState} state */
  #become(state) {
    if (this.state === state) return;
    this.state = state;
    this.dispatchEvent(new Event("state"));
  }
}

/**
 * Opus for voices; VP8 with retransmission for pictures. All that a browser could do would make an offer of 100 kB.
 * @param {string} kind
 * @returns {RTCRtpCodec[]}
 */
function codecs(kind) {
  const wanted = kind === "audio" ? ["audio/opus"] : ["video/vp8", "video/rtx"];
  const known = RTCRtpReceiver.getCapabilities(kind)?.codecs ?? [];
  return known.filter((codec) => wanted.includes(codec.mimeType.toLowerCase()));
}

/**
 * The offer, in which a lost packet of a voice may be asked for again. Browsers send one again when they are asked to,
 * but do not offer it; and a recording should miss no word that could still come.
 * @param {string} offer
 */
function withRepairedVoice(offer) {
  return offer.replace(/^a=rtpmap:(\d+) opus\/48000\/2\r\n/gim, "$&a=rtcp-fb:$1 nack\r\n");
}
