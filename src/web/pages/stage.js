/** The tiles: one per person, ourselves included, and one per shared screen. They stay while people come and go. */

import { h, icon, setText } from "./dom.js";
import { useSpeaker } from "./devices.js";
import { roleName, t } from "./i18n.js";

/** @typedef {import("./types.js").SessionView} SessionView */
/** @typedef {import("./types.js").Person} Person */
/** @typedef {import("./api.js").Session} Session */
/** @typedef {import("./media.js").Media} Media */
/** @typedef {import("./devices.js").Devices} Devices */

/** Louder than this is speech; a linear level, 1 is the loudest. */
const SPEECH_LEVEL = 0.03;
const LISTEN_EVERY_MS = 200;

/** Events: `sound` (see `silenced`). */
export class Stage extends EventTarget {
  /**
   * @param {Session} session
   * @param {Media} media
   * @param {Devices} devices
   */
  constructor(session, media, devices) {
    super();
    this.session = session;
    this.media = media;
    this.devices = devices;
    /** By person, in the order in which they are shown. @type {Map<string, Tile>} */
    this.tiles = new Map();
    /** @type {Map<string, ScreenTile>} */
    this.screens = new Map();
    /** The browser plays no sound before a touch. */
    this.silenced = false;
    this.element = h("div", { class: "stage", role: "list", "aria-label": t("room.people") });
    this.refresh = () => this.#attach();
    media.addEventListener("slots", this.refresh);
    devices.addEventListener("change", this.refresh);
    this.timer = setInterval(() => this.#markSpeakers(), LISTEN_EVERY_MS);
  }

  /** @param {SessionView} view */
  update(view) {
    const people = view.participants.filter((person) => person.place === "inside" || person.id === view.me.id);
    // The officer first, ourselves last: who one talks to stands on top of a narrow screen.
    people.sort((a, b) => rank(a, view) - rank(b, view));
    const before = this.tiles;
    this.tiles = new Map(
      people.map((person) => [person.id, before.get(person.id) ?? new Tile(person, person.id === view.me.id)]),
    );
    for (const [id, tile] of before) if (!this.tiles.has(id)) tile.close();
    for (const person of people) this.tiles.get(person.id)?.update(person, view);
    this.#attach();
  }

  /** Tries to be heard; after a touch the browser lets it. */
  async play() {
    const tries = [...this.tiles.values()].map((tile) => tile.play(this.devices.chosen.speaker));
    const heard = await Promise.all(tries);
    this.silenced = heard.includes(false);
    this.dispatchEvent(new Event("sound"));
  }

  close() {
    clearInterval(this.timer);
    this.media.removeEventListener("slots", this.refresh);
    this.devices.removeEventListener("change", this.refresh);
    for (const tile of this.tiles.values()) tile.close();
    for (const tile of this.screens.values()) tile.close();
  }

  /** Puts every track that arrives where it belongs. */
  #attach() {
    const me = this.session.view?.me.id;
    let newVoice = false;
    for (const [id, tile] of this.tiles) {
      if (id === me) {
        tile.showCamera(this.devices.cameraOn ? this.devices.camera : null, null);
        continue;
      }
      const { camera, microphone, screen } = this.media.tracksOf(id);
      tile.showCamera(camera ?? null, this.media.timings.firstFrame);
      newVoice = tile.hear(microphone ?? null) || newVoice;
      this.#showScreen(id, tile.name, screen ?? null);
    }
    for (const id of this.screens.keys()) if (!this.tiles.has(id)) this.#showScreen(id, "", null);
    this.#arrange();
    if (newVoice) void this.play();
  }

  /**
   * @param {string} id
   * @param {string} name
   * @param {MediaStreamTrack | null} track
   */
  #showScreen(id, name, track) {
    let tile = this.screens.get(id);
    if (!track) {
      tile?.close();
      this.screens.delete(id);
      return;
    }
    if (!tile) {
      tile = new ScreenTile(id, name);
      this.screens.set(id, tile);
    }
    setTrack(tile.video, track);
  }

  /** Moves a tile only if it stands wrong: moving a playing element would stop it. */
  #arrange() {
    const order = [...this.screens.values(), ...this.tiles.values()].map((tile) => tile.element);
    order.forEach((element, index) => {
      if (this.element.children[index] !== element)
        this.element.insertBefore(element, this.element.children[index] ?? null);
    });
    this.element.dataset.count = String(this.tiles.size);
    this.element.dataset.screens = String(this.screens.size);
  }

  #markSpeakers() {
    for (const transceiver of this.media.pc?.getTransceivers() ?? []) {
      const track = transceiver.receiver.track;
      if (track.kind !== "audio") continue;
      const level = transceiver.receiver.getSynchronizationSources()[0]?.audioLevel ?? 0;
      for (const tile of this.tiles.values()) {
        if (tile.voice === track) tile.element.dataset.speaking = String(level > SPEECH_LEVEL);
      }
    }
  }
}

/**
 * @param {Person} person
 * @param {SessionView} view
 */
function rank(person, view) {
  if (person.id === view.me.id) return 9;
  return ["operator", "delegato", "delegante", "citizen", "guest"].indexOf(person.role);
}

class Tile {
  /**
   * @param {Person} person
   * @param {boolean} self
   */
  constructor(person, self) {
    this.id = person.id;
    this.self = self;
    this.name = person.name;
    /** @type {MediaStreamTrack | null} */
    this.voice = null;
    this.video = h("video", { autoplay: true, playsinline: true, muted: true, class: self ? "mirrored" : null });
    this.video.muted = true;
    this.audio = self ? null : h("audio", { autoplay: true });
    this.cover = h("p", { class: "tile-cover" }, icon("person"), h("span", {}));
    this.nameText = h("strong", {});
    this.roleText = h("span", { class: "tile-role" });
    this.quiet = h(
      "span",
      { class: "tile-quiet", title: t("room.microphoneMissing"), hidden: true },
      icon("microphoneOff"),
      h("span", { class: "only-read" }, t("room.microphoneMissing")),
    );
    this.element = h(
      "div",
      {
        class: "tile",
        role: "listitem",
        "data-participant": person.id,
        "data-role": person.role,
        "data-self": self ? "true" : null,
      },
      this.video,
      this.audio,
      this.cover,
      h("p", { class: "tile-plate" }, h("span", { class: "tile-words" }, this.nameText, this.roleText), this.quiet),
    );
  }

  /**
   * @param {Person} person
   * @param {SessionView} view
   */
  update(person, view) {
    this.name = person.name;
    setText(this.nameText, this.self ? `${person.name} (${t("me")})` : person.name);
    const beside = view.participants.filter((other) => other.attested_beside === person.id);
    const company = beside.map((other) => t("room.beside", { name: `${other.name} (${roleName(other.role)})` }));
    setText(this.roleText, [roleName(person.role), ...company].join(", "));
    this.video.setAttribute("aria-label", person.name);
    this.quiet.hidden = this.self || !person.connected || person.sources.includes("microphone");
    this.connected = this.self || person.connected;
    this.flow = view.flow;
    this.suspended = view.suspended !== null || view.recording.state === "lost";
    this.#cover();
  }

  /**
   * @param {MediaStreamTrack | null} track
   * @param {Record<string, number> | null} firstFrame where to note when the first picture is seen
   */
  showCamera(track, firstFrame) {
    if (setTrack(this.video, track) && track && firstFrame) {
      this.video.requestVideoFrameCallback?.((now) => {
        firstFrame[this.id] ??= now;
      });
    }
    this.#cover();
  }

  /**
   * @param {MediaStreamTrack | null} track
   * @returns {boolean} whether there is something new to be heard
   */
  hear(track) {
    this.voice = track;
    return this.audio !== null && setTrack(this.audio, track) && track !== null;
  }

  /**
   * @param {string | undefined} speaker
   * @returns {Promise<boolean>} false if the browser forbids it
   */
  async play(speaker) {
    if (!this.audio?.srcObject) return true;
    await useSpeaker(this.audio, speaker);
    try {
      await this.audio.play();
      return true;
    } catch (error) {
      return !(error instanceof DOMException && error.name === "NotAllowedError");
    }
  }

  close() {
    this.video.srcObject = null;
    if (this.audio) this.audio.srcObject = null;
    this.element.remove();
  }

  /** A picture that stands still must not look like a person who does. */
  #cover() {
    const words =
      this.connected === false
        ? t("room.reconnecting")
        : !this.self && this.flow === false
          ? t(this.suspended ? "room.paused" : "room.soon")
          : this.video.srcObject === null
            ? t("room.noPicture")
            : null;
    this.cover.hidden = words === null;
    if (words !== null && this.cover.lastElementChild) setText(this.cover.lastElementChild, words);
  }
}

class ScreenTile {
  /**
   * @param {string} id
   * @param {string} name
   */
  constructor(id, name) {
    const label = t("room.screenOf", { name });
    this.video = h("video", { autoplay: true, playsinline: true, muted: true, "aria-label": label });
    this.video.muted = true;
    this.element = h(
      "div",
      { class: "tile screen", role: "listitem", "data-screen": id },
      this.video,
      h("p", { class: "tile-plate" }, h("strong", {}, label)),
    );
  }

  close() {
    this.video.srcObject = null;
    this.element.remove();
  }
}

/**
 * @param {HTMLMediaElement} element
 * @param {MediaStreamTrack | null} track
 * @returns {boolean} whether it is another than before
 */
function setTrack(element, track) {
  const shown = element.srcObject instanceof MediaStream ? (element.srcObject.getTracks()[0] ?? null) : null;
  if (shown === track) return false;
  element.srcObject = track && new MediaStream([track]);
  return true;
}
