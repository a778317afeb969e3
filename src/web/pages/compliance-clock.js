/**
 * One clock for many films: each stands at its own place of the meeting's time, and all of them are played, held and moved
 * together. Media elements start at different speeds and drift apart; they are brought back by playing a little faster or
 * slower, which nobody hears, and if one has nothing to show yet, all of them wait for it.
 */

/** Looks at the films so often, milliseconds. */
const LOOK_MS = 20;
/** From here on a film is brought back, until it is nearer than the second. Seconds. */
const APART = 0.008;
const NEAR = 0.003;
/** Further apart, it jumps. Seconds. */
const LOST = 0.25;
/** By so much a film is played faster or slower at most. More is heard. */
const HASTE = 0.06;
/** And by so much, for a fraction of a second, if one would see it: just after a start, on a busy machine. */
const HURRY = 0.25;
/** What one would see. Seconds. */
const SEEN = 0.03;
/** After a start the clock follows the films once: they all take a moment. Milliseconds. */
const STARTED_MS = 130;
/** A film that comes up is opened so long before. Seconds. */
const AHEAD = 4;
/** All wait for one so long at most; then it is left behind. Milliseconds. */
const PATIENCE_MS = 15_000;
/** Shorter standstills are made good by haste. Milliseconds. */
const STANDSTILL_MS = 120;
/** A film's last moment: players do not say that there is more to come. Seconds. */
const LAST = 0.3;

/**
 * @typedef {object} Part a film
 * @property {string} url
 * @property {number} from place of its beginning in the meeting's time, seconds
 * @property {number} to
 */

/** One camera or screen: films one after the other, with gaps. */
export class Lane {
  /** @param {HTMLVideoElement} video @param {Part[]} parts in the order of time */
  constructor(video, parts) {
    this.video = video;
    this.parts = parts;
    /** @type {Part | null} what is in the element */
    this.part = null;
    /** @type {Set<Part>} those that cannot be played */
    this.broken = new Set();
    this.correcting = false;
    this.late = 0;
    /** @type {Part | null} the one that was started together with the others */
    this.joined = null;
    /** @type {number | null} where to go once the film is open */
    this.pending = null;
    video.preload = "auto";
    video.addEventListener("error", () => this.part && this.broken.add(this.part));
    video.addEventListener("loadedmetadata", () => {
      if (this.pending !== null) video.currentTime = this.pending;
      this.pending = null;
    });
  }

  /** What is to be seen at this time. @param {number} time */
  at(time) {
    const part = this.parts.find(({ from, to }) => from <= time && time < to - 0.02);
    return part && !this.broken.has(part) ? part : null;
  }

  /** Whether the element shows what it should at this time. @param {number} time */
  shows(time) {
    return this.part !== null && this.at(time) === this.part;
  }

  /**
   * Puts the right film at the right place.
   * @param {number} time
   * @param {boolean} [anew] also if it stands there already
   */
  place(time, anew = false) {
    const part = this.at(time) ?? this.parts.find(({ from }) => from > time && from < time + AHEAD) ?? null;
    if (part === null) return;
    const where = Math.max(0, time - part.from);
    if (part === this.part) {
      if (this.video.readyState === 0) this.pending = where;
      else if (anew || Math.abs(this.video.currentTime - where) > 0.001) this.video.currentTime = where;
      return;
    }
    this.part = part;
    this.pending = where;
    this.video.dataset.from = String(part.from);
    this.video.src = part.url;
  }

  get ready() {
    const { video } = this;
    if (this.part && this.broken.has(this.part)) return true;
    if (this.pending !== null || video.seeking) return false;
    return video.readyState >= 3 || (video.readyState === 2 && video.currentTime > video.duration - LAST);
  }
}

export class Clock extends EventTarget {
  /** @param {Lane[]} lanes @param {number} duration seconds */
  constructor(lanes, duration) {
    super();
    this.lanes = lanes;
    this.duration = duration;
    this.rate = 1;
    /** Whether somebody wants it to play. */
    this.wanted = false;
    /** Whether time passes. */
    this.running = false;
    this.base = 0;
    this.since = 0;
    this.calibrated = false;
    this.waitingSince = performance.now();
    this.timer = setInterval(() => this.#look(), LOOK_MS);
    for (const lane of lanes) lane.place(0);
  }

  /** The meeting's time that is shown, seconds. */
  get time() {
    if (!this.running) return this.base;
    return Math.min(this.duration, this.base + ((performance.now() - this.since) / 1000) * this.rate);
  }

  /** Whether something is awaited. */
  get waiting() {
    return !this.running && this.lanes.some((lane) => lane.shows(this.base) && !lane.ready);
  }

  play() {
    if (this.base >= this.duration - 0.05) this.seek(0);
    this.wanted = true;
    this.waitingSince = performance.now();
    this.#tell();
    this.#look();
  }

  pause() {
    this.wanted = false;
    this.#stop();
    for (const lane of this.lanes) if (lane.shows(this.base)) lane.place(this.base);
    this.#tell();
  }

  /** @param {number} time seconds */
  seek(time) {
    this.#stop();
    this.base = Math.min(this.duration, Math.max(0, time));
    for (const lane of this.lanes) lane.place(this.base);
    this.waitingSince = performance.now();
    this.#tell();
  }

  /** @param {number} rate */
  setRate(rate) {
    this.base = this.time;
    this.since = performance.now();
    this.rate = rate;
    for (const lane of this.lanes) lane.video.playbackRate = rate;
  }

  close() {
    clearInterval(this.timer);
    for (const { video } of this.lanes) {
      video.pause();
      video.removeAttribute("src");
      video.load();
    }
  }

  #tell() {
    this.dispatchEvent(new Event("change"));
  }

  #stop() {
    this.base = this.time;
    this.running = false;
    for (const lane of this.lanes) lane.video.pause();
  }

  #look() {
    if (this.running) this.#keep();
    else if (this.wanted) this.#start();
  }

  /** Starts once everyone who is to be seen can be. */
  #start() {
    const slow = this.lanes.filter((lane) => lane.shows(this.base) && !lane.ready);
    if (slow.length > 0) {
      if (performance.now() - this.waitingSince < PATIENCE_MS) return;
      for (const lane of slow) if (lane.part) lane.broken.add(lane.part);
    }
    this.running = true;
    this.calibrated = false;
    this.since = performance.now();
    for (const lane of this.lanes) {
      lane.correcting = false;
      lane.late = 0;
      lane.video.playbackRate = this.rate;
      lane.joined = lane.shows(this.base) ? lane.part : null;
      if (lane.joined !== null) this.#roll(lane);
    }
    this.#tell();
  }

  /** @param {Lane} lane */
  #roll(lane) {
    lane.video.play().catch((/** @type {DOMException} */ error) => {
      if (error.name === "NotAllowedError") this.pause();
    });
  }

  /** Time passes: who comes and goes, and who is early or late. */
  #keep() {
    const { time } = this;
    if (time >= this.duration) return this.pause();
    const shown = this.lanes.filter((lane) => this.#attend(lane, time));
    const coming = shown.filter((lane) => lane.joined !== lane.part);
    const stuck = shown.filter((lane) => {
      lane.late = lane.ready ? 0 : lane.late + LOOK_MS;
      return lane.late > STANDSTILL_MS;
    });
    // Whoever comes in would be late by as long as a start takes: so all of them start anew, where it begins.
    if (coming.length > 0 || stuck.length > 0) {
      this.#stop();
      this.base = Math.min(this.base, ...coming.map(({ part }) => part?.from ?? this.base));
      this.waitingSince = performance.now();
      // Those that were held for a moment only would go on sooner than one that starts: after a seek all start alike.
      for (const lane of shown) lane.place(this.base, true);
      return this.#tell();
    }
    const moving = shown.filter((lane) => lane.ready && !lane.video.paused && !lane.video.ended);
    if (!this.calibrated && performance.now() - this.since > STARTED_MS && moving.length > 0) {
      this.calibrated = true;
      const ahead = moving.map((lane) => this.#ahead(lane, time));
      // Not to before the start: a film that has just come in would not be there yet.
      this.base += Math.max(this.base - time, ahead.reduce((sum, one) => sum + one, 0) / ahead.length);
    }
    if (this.calibrated) for (const lane of moving) this.#bring(lane, this.time);
  }

  /**
   * Opens, starts and ends a lane's films; whether one is to be seen now.
   * @param {Lane} lane
   * @param {number} time
   */
  #attend(lane, time) {
    const due = lane.at(time);
    if (due === null) {
      if (!lane.video.paused) lane.video.pause();
      const next = lane.parts.find(({ from }) => from > time);
      if (next && next.from < time + AHEAD && next !== lane.part) lane.place(time);
      return false;
    }
    if (due !== lane.part) lane.place(time);
    if (lane.joined === due && lane.video.paused && !lane.video.ended) this.#roll(lane);
    return true;
  }

  /** How far a film is ahead of the time. @param {Lane} lane @param {number} time */
  #ahead(lane, time) {
    return lane.video.currentTime + (lane.part?.from ?? 0) - time;
  }

  /** @param {Lane} lane @param {number} time */
  #bring(lane, time) {
    const ahead = this.#ahead(lane, time);
    const apart = Math.abs(ahead);
    if (apart > LOST) {
      lane.video.currentTime = Math.max(0, time - (lane.part?.from ?? 0));
      return;
    }
    if (apart > APART) lane.correcting = true;
    else if (apart < NEAR) lane.correcting = false;
    const haste = lane.correcting ? Math.sign(ahead) * (apart > SEEN ? HURRY : HASTE) : 0;
    const rate = this.rate * (1 - haste);
    if (Math.abs(lane.video.playbackRate - rate) > 0.004) lane.video.playbackRate = rate;
  }
}
