/** Camera, microphone and loudspeaker of this device: chosen, opened, measured, and what to do when they refuse. */

/** @typedef {"denied" | "in-use" | "missing" | "insecure" | "unsupported" | "failed"} Trouble */
/** @typedef {"microphone" | "camera"} Device */

const STORE = "sportello.devices";

/** Papers are held up to the camera: 4:3 shows more of them than 16:9 at the same cost. */
const PICTURE = { width: { ideal: 640 }, height: { ideal: 480 }, frameRate: { ideal: 24, max: 30 } };
const VOICE = { echoCancellation: true, noiseSuppression: true, autoGainControl: true };

/**
 * What the person chose, kept for a reload. Events: `change` (a track came or went, something was chosen).
 */
export class Devices extends EventTarget {
  constructor() {
    super();
    /** @type {MediaStreamTrack | null} */
    this.microphone = null;
    /** @type {MediaStreamTrack | null} */
    this.camera = null;
    /** @type {Partial<Record<Device, Trouble>>} */
    this.troubles = {};
    /** @type {{chosen?: {microphone?: string, camera?: string, speaker?: string}, microphoneOn?: boolean, cameraOn?: boolean}} */
    const kept = JSON.parse(sessionStorage.getItem(STORE) ?? "{}");
    this.chosen = kept.chosen ?? {};
    // Whoever was silent before a reload is silent after it.
    this.microphoneOn = kept.microphoneOn ?? true;
    this.cameraOn = kept.cameraOn ?? true;
    navigator.mediaDevices?.addEventListener("devicechange", () => this.#changed());
  }

  get ready() {
    return this.microphone !== null && this.camera !== null;
  }

  /** The browser or the page itself stands in the way: trying again changes nothing. */
  get hopeless() {
    return Object.values(this.troubles).some((trouble) => trouble === "insecure" || trouble === "unsupported");
  }

  /** Opens both; what does not open is told in `troubles`. */
  async open() {
    if (!navigator.mediaDevices?.getUserMedia) {
      const trouble = window.isSecureContext ? "unsupported" : "insecure";
      this.troubles = { microphone: trouble, camera: trouble };
      this.#changed();
      return;
    }
    this.troubles = {};
    try {
      // One question for both, not two.
      const stream = await navigator.mediaDevices.getUserMedia({ audio: this.#audio(), video: this.#video() });
      this.#take("microphone", stream.getAudioTracks()[0]);
      this.#take("camera", stream.getVideoTracks()[0]);
    } catch {
      await this.#openOne("microphone");
      await this.#openOne("camera");
    }
    this.#changed();
  }

  /**
   * Takes another device of a kind.
   * @param {Device | "speaker"} kind
   * @param {string} id
   */
  async choose(kind, id) {
    this.chosen[kind] = id;
    // What was chosen by hand, not what the browser thinks fits better; if it is gone, any other.
    if (kind !== "speaker" && !(await this.#openOne(kind, true))) await this.#openOne(kind);
    this.#changed();
  }

  /** @param {boolean} on */
  switchMicrophone(on) {
    this.microphoneOn = on;
    if (this.microphone) this.microphone.enabled = on;
    this.#changed();
  }

  /** @param {boolean} on */
  switchCamera(on) {
    this.cameraOn = on;
    if (this.camera) this.camera.enabled = on;
    this.#changed();
  }

  /** Switches both off, so that the browser's sign that they are on goes out. */
  release() {
    this.#take("microphone", undefined);
    this.#take("camera", undefined);
    this.microphoneOn = true;
    this.cameraOn = true;
    this.#changed();
  }

  /**
   * @param {Device} kind
   * @param {boolean} [exactly] the chosen one or none
   * @returns {Promise<boolean>} whether it is open
   */
  async #openOne(kind, exactly = false) {
    const wanted = kind === "microphone" ? this.#audio() : this.#video();
    if (exactly) wanted.deviceId = { exact: this.chosen[kind] ?? "" };
    const constraints = kind === "microphone" ? { audio: wanted } : { video: wanted };
    delete this.troubles[kind];
    try {
      const stream = await navigator.mediaDevices.getUserMedia(constraints);
      this.#take(kind, stream.getTracks()[0]);
      return true;
    } catch (error) {
      this.#take(kind, undefined);
      this.troubles[kind] = troubleOf(error);
      return false;
    }
  }

  /**
   * @param {Device} kind
   * @param {MediaStreamTrack | undefined} track
   */
  #take(kind, track) {
    this[kind]?.stop();
    this[kind] = track ?? null;
    if (!track) return;
    track.enabled = kind === "microphone" ? this.microphoneOn : this.cameraOn;
    track.contentHint = kind === "microphone" ? "speech" : "";
    track.addEventListener("ended", () => this.#lost(kind, track));
  }

  /**
   * A device was pulled out or taken by the system: any other of its kind will do.
   * @param {Device} kind
   * @param {MediaStreamTrack} track
   */
  async #lost(kind, track) {
    if (this[kind] !== track) return;
    await this.#openOne(kind);
    this.#changed();
  }

  /** @returns {MediaTrackConstraints} */
  #audio() {
    return { ...VOICE, ...(this.chosen.microphone ? { deviceId: { ideal: this.chosen.microphone } } : {}) };
  }

  /** @returns {MediaTrackConstraints} */
  #video() {
    return { ...PICTURE, ...(this.chosen.camera ? { deviceId: { ideal: this.chosen.camera } } : {}) };
  }

  #changed() {
    const { chosen, microphoneOn, cameraOn } = this;
    sessionStorage.setItem(STORE, JSON.stringify({ chosen, microphoneOn, cameraOn }));
    this.dispatchEvent(new Event("change"));
  }
}

/** @param {unknown} error @returns {Trouble} */
function troubleOf(error) {
  switch (error instanceof DOMException ? error.name : "") {
    case "NotAllowedError":
    case "SecurityError":
      return "denied";
    case "NotReadableError":
    case "AbortError":
      return "in-use";
    case "NotFoundError":
    case "OverconstrainedError":
      return "missing";
    default:
      return "failed";
  }
}

/**
 * What there is to choose from.
 * @returns {Promise<Record<Device | "speaker", MediaDeviceInfo[]>>}
 */
export async function listDevices() {
  const all = (await navigator.mediaDevices?.enumerateDevices?.()) ?? [];
  /** @param {MediaDeviceKind} kind */
  const of = (kind) => all.filter((device) => device.kind === kind && device.deviceId !== "");
  return { microphone: of("audioinput"), camera: of("videoinput"), speaker: of("audiooutput") };
}

/** How loud a microphone is, a few times a second. */
export class LevelMeter {
  /** @param {(level: number) => void} show 0 to 1 */
  constructor(show) {
    this.show = show;
    this.context = new AudioContext();
    /** @type {MediaStreamAudioSourceNode | null} */
    this.source = null;
    /** @type {MediaStreamTrack | null} */
    this.track = null;
    this.analyser = this.context.createAnalyser();
    this.analyser.fftSize = 512;
    this.samples = new Float32Array(this.analyser.fftSize);
    this.timer = setInterval(() => this.#measure(), 100);
  }

  /** @param {MediaStreamTrack | null} track */
  listen(track) {
    if (track === this.track) return;
    this.source?.disconnect();
    this.track = track;
    this.source = track && this.context.createMediaStreamSource(new MediaStream([track]));
    this.source?.connect(this.analyser);
  }

  close() {
    clearInterval(this.timer);
    this.source?.disconnect();
    void this.context.close();
  }

  #measure() {
    // Suspended until the person has touched the page; after a reload that may be later.
    if (this.context.state === "suspended") void this.context.resume();
    this.analyser.getFloatTimeDomainData(this.samples);
    let power = 0;
    for (const sample of this.samples) power += sample * sample;
    const decibels = 10 * Math.log10(power / this.samples.length + 1e-10);
    // -60 dB, a quiet room, is empty; -10 dB, a loud voice, is full.
    this.show(Math.min(1, Math.max(0, (decibels + 60) / 50)));
  }
}

/**
 * Plays two soft tones on the chosen loudspeaker.
 * @param {string | undefined} speaker
 */
export async function playTestSound(speaker) {
  const context = new AudioContext();
  const output = context.createMediaStreamDestination();
  const volume = context.createGain();
  volume.gain.value = 0.2;
  volume.connect(output);
  for (const [index, frequency] of [440, 554].entries()) {
    const tone = context.createOscillator();
    tone.frequency.value = frequency;
    tone.connect(volume);
    tone.start(context.currentTime + index * 0.4);
    tone.stop(context.currentTime + index * 0.4 + 0.35);
  }
  const audio = new Audio();
  audio.srcObject = output.stream;
  await useSpeaker(audio, speaker);
  await audio.play();
  setTimeout(() => void context.close(), 1200);
}

/**
 * @param {HTMLMediaElement} element
 * @param {string | undefined} speaker
 */
export async function useSpeaker(element, speaker) {
  if (!speaker || !("setSinkId" in element) || element.sinkId === speaker) return;
  try {
    await element.setSinkId(speaker);
  } catch {
    // It is gone: the sound comes out of the usual one.
  }
}
