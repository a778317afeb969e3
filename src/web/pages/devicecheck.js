/** Camera and microphone are tried and chosen here, before anyone is seen or heard, and again in mid-call. */

import { LevelMeter, listDevices, playTestSound } from "./devices.js";
import { h, icon, setText } from "./dom.js";
import { t } from "./i18n.js";
import { letsUdpThrough } from "./network.js";

/** @typedef {import("./types.js").Screen} Screen */
/** @typedef {import("./join.js").App} App */
/** @typedef {import("./devices.js").Devices} Devices */
/** @typedef {"camera" | "microphone" | "speaker"} Kind */

/**
 * @param {App} app
 * @param {import("./types.js").SessionView} view
 * @param {import("./api.js").Session} session
 * @returns {Screen}
 */
export function deviceScreen(app, view, session) {
  const { devices } = app;
  const enter = h("button", { id: "enter-room", class: "button primary", type: "button", disabled: true });
  enter.append(t(view.place === "admitted" ? "devices.enter" : "devices.back"), icon("arrow"));
  const state = h("p", { class: "notice", role: "status" }, t("devices.opening"));
  const trouble = h("div", { class: "notice danger", role: "alert", hidden: true });
  const retry = h("button", { id: "devices-retry", class: "button primary", type: "button", hidden: true }, t("devices.retry"));
  // Without a camera or a microphone one can wait, be seen to have trouble, and be helped; not without a browser for it.
  const anyway = h("button", { id: "enter-anyway", class: "button", type: "button", hidden: true }, t("devices.anyway"));
  const board = deviceBoard(devices);
  // One may go in all the same: it may be a mistake, and in the room there is somebody who can help.
  const network = h("div", { id: "network-trouble", class: "notice warning", role: "alert", hidden: true });
  const question = new AbortController();
  void letsUdpThrough(view.reflectors, question.signal).then((passes) => {
    if (passes || question.signal.aborted) return;
    network.append(h("p", {}, h("strong", {}, t("devices.network"))), h("p", {}, t("devices.network.remedy")));
    network.hidden = false;
  });

  const update = () => {
    enter.disabled = !devices.ready;
    const remedies = remediesFor(devices);
    trouble.hidden = remedies.length === 0;
    // A button that cannot be pressed would be the first one tried.
    enter.hidden = !trouble.hidden;
    retry.hidden = trouble.hidden;
    anyway.hidden = trouble.hidden || devices.hopeless;
    state.hidden = !trouble.hidden;
    state.className = devices.ready ? "notice success" : "notice";
    setText(state, devices.ready ? t("devices.ok") : t("devices.opening"));
    // Said once: an alert that is written again is read again.
    if (trouble.textContent !== remedies.flat().join("")) {
      trouble.replaceChildren(
        ...remedies.flatMap(([what, remedy]) => [h("p", {}, h("strong", {}, what)), h("p", {}, remedy)]),
      );
    }
  };

  retry.addEventListener("click", () => void devices.open());
  const goIn = async () => {
    enter.disabled = true;
    app.checked = true;
    const place = session.view?.place;
    const found = { camera: devices.camera !== null, microphone: devices.microphone !== null };
    const entered = place !== "admitted" || (await app.attempt(() => session.enter(found)));
    if (!entered) app.checked = false;
    enter.disabled = !devices.ready;
    app.follow();
  };
  enter.addEventListener("click", goIn);
  anyway.addEventListener("click", goIn);
  devices.addEventListener("change", update);
  update();
  if (!devices.ready) void devices.open();

  const element = h(
    "section",
    { class: "card wide" },
    h("h1", {}, t("devices.heading")),
    h("p", { class: "lead" }, t("devices.text")),
    trouble,
    network,
    board.element,
    state,
    h("div", { class: "actions" }, enter, retry, anyway),
  );
  return {
    element,
    close: () => {
      question.abort();
      board.close?.();
      devices.removeEventListener("change", update);
    },
  };
}

/**
 * What does not work and what to do about it; said once if both have the same trouble.
 * @param {Devices} devices
 * @returns {[string, string][]}
 */
function remediesFor(devices) {
  const { camera, microphone } = devices.troubles;
  if (camera && camera === microphone) return [[t("devices.trouble.both"), t(`devices.${camera}`)]];
  /** @type {[string, string][]} */
  const remedies = [];
  if (camera) remedies.push([t("devices.trouble.camera"), t(`devices.${camera}`)]);
  if (microphone) remedies.push([t("devices.trouble.microphone"), t(`devices.${microphone}`)]);
  return remedies;
}

/**
 * The picture, the level and the choice of devices; in the device check and in the room's settings.
 * @param {Devices} devices
 * @returns {Screen}
 */
export function deviceBoard(devices) {
  const preview = h("video", {
    id: "preview",
    class: "mirrored",
    muted: true,
    autoplay: true,
    playsinline: true,
    "aria-label": t("devices.preview"),
  });
  preview.muted = true;
  const cover = h("p", { class: "tile-cover" }, icon("cameraOff"), h("span", {}, t("devices.noPicture")));
  const level = h("meter", { id: "level", min: 0, max: 1, value: 0, "aria-label": t("devices.level") });
  const meter = new LevelMeter((value) => {
    level.value = value;
  });
  const selects = {
    camera: choice(devices, "camera"),
    microphone: choice(devices, "microphone"),
    speaker: choice(devices, "speaker"),
  };
  const test = h("button", { id: "speaker-test", class: "button small", type: "button" }, t("devices.speaker.test"));
  test.addEventListener("click", () => void playTestSound(devices.chosen.speaker));

  const update = async () => {
    const track = devices.camera;
    const shown = /** @type {MediaStream | null} */ (preview.srcObject)?.getTracks()[0] ?? null;
    if (shown !== track) preview.srcObject = track && new MediaStream([track]);
    cover.hidden = track !== null;
    meter.listen(devices.microphone);
    const known = await listDevices();
    fill(selects.camera, known.camera, devices.camera?.getSettings().deviceId);
    fill(selects.microphone, known.microphone, devices.microphone?.getSettings().deviceId);
    fill(selects.speaker, known.speaker, devices.chosen.speaker);
  };
  devices.addEventListener("change", update);
  void update();

  const element = h(
    "div",
    { class: "board" },
    h("div", { class: "picture" }, preview, cover),
    h(
      "div",
      { class: "choices" },
      labelled("camera", selects.camera),
      labelled("microphone", selects.microphone),
      h("div", { class: "level" }, level, h("p", { class: "hint" }, t("devices.level.hint"))),
      labelled("speaker", selects.speaker),
      test,
    ),
  );
  return {
    element,
    close: () => {
      meter.close();
      devices.removeEventListener("change", update);
    },
  };
}

/**
 * @param {Devices} devices
 * @param {Kind} kind
 */
function choice(devices, kind) {
  const select = h("select", { id: `choose-${kind}` });
  select.addEventListener("change", () => void devices.choose(kind, select.value));
  return select;
}

/**
 * @param {Kind} kind
 * @param {HTMLSelectElement} select
 */
function labelled(kind, select) {
  return h("div", { class: "field" }, h("label", { for: select.id }, t(`devices.${kind}`)), select);
}

/**
 * @param {HTMLSelectElement} select
 * @param {MediaDeviceInfo[]} known
 * @param {string | undefined} current
 */
function fill(select, known, current) {
  const options = known.map((device, index) =>
    h("option", { value: device.deviceId }, device.label || t("devices.nameless", { n: index + 1 })),
  );
  select.replaceChildren(...(options.length > 0 ? options : [h("option", { value: "" }, t("devices.usual"))]));
  if (current && known.some((device) => device.deviceId === current)) select.value = current;
  select.disabled = options.length < 2;
}
