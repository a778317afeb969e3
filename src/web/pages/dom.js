/** Elements made by hand: text goes in as text, so nothing that a person or a booking wrote can become markup. */

/** @typedef {Node | string | null | undefined | false} Child */

/**
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K} name
 * @param {Record<string, unknown>} [attributes] `on…` functions are listeners, `true` is a bare attribute
 * @param {...Child} children
 * @returns {HTMLElementTagNameMap[K]}
 */
export function h(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (typeof value === "function") {
      element.addEventListener(key.slice(2), /** @type {EventListener} */ (value));
    } else if (value === true) {
      element.setAttribute(key, "");
    } else if (value !== false && value !== null && value !== undefined) {
      element.setAttribute(key, String(value));
    }
  }
  element.append(...children.filter(isChild));
  return element;
}

/** @param {Child} child @returns {child is Node | string} */
function isChild(child) {
  return child !== null && child !== undefined && child !== false;
}

/**
 * Sets a text only when it differs: a live region must not speak twice.
 * @param {Element} element
 * @param {string} text
 */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/**
 * @param {string} id
 * @returns {HTMLElement}
 */
export function byId(id) {
  const element = document.getElementById(id);
  if (!element) throw new Error(`the page has no #${id}`);
  return element;
}

/**
 * Asks before something that cannot be taken back.
 * @param {string} question
 * @param {string} yesText
 * @param {string} noText
 * @returns {Promise<boolean>}
 */
export function confirmed(question, yesText, noText) {
  const yes = h("button", { id: "confirm-yes", class: "button danger", type: "button" }, yesText);
  const no = h("button", { id: "confirm-no", class: "button", type: "button" }, noText);
  const dialog = h(
    "dialog",
    { "aria-labelledby": "confirm-question" },
    h("p", { id: "confirm-question" }, question),
    h("div", { class: "actions" }, no, yes),
  );
  byId("main").append(dialog);
  return new Promise((resolve) => {
    yes.addEventListener("click", () => dialog.close("yes"));
    no.addEventListener("click", () => dialog.close());
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(dialog.returnValue === "yes");
    });
    dialog.showModal();
    no.focus();
  });
}

/**
 * One press, one command: the button rests until the answer is there.
 * @param {HTMLButtonElement} button
 * @param {() => Promise<unknown> | void} act
 */
export async function pressed(button, act) {
  button.disabled = true;
  try {
    await act();
  } finally {
    button.disabled = false;
  }
}

/** Outlines on a 24 by 24 grid. @type {Record<string, string>} */
const ICONS = {
  microphone: "M12 3a3 3 0 0 0-3 3v5a3 3 0 0 0 6 0V6a3 3 0 0 0-3-3zM6 11a6 6 0 0 0 12 0M12 17v4M9 21h6",
  microphoneOff:
    "M9 9v2a3 3 0 0 0 4.5 2.6M15 11V6a3 3 0 0 0-5.6-1.5M6 11a6 6 0 0 0 9 5.2M18 11a6 6 0 0 1-.6 2.6M12 17v4M9 21h6M4 3l16 18",
  camera: "M3 7h11v10H3zM14 11l7-4v10l-7-4z",
  cameraOff: "M8 7h6v6M14 17H3V7h2M14 11l7-4v10l-4-2.300M3 3l18 18",
  screen: "M3 4h18v12H3zM9 20h6M12 16v4M12 13V7M9.500 9.500 12 7l2.500 2.500",
  leave: "M10 4H4v16h6M14 8l4 4-4 4M18 12H9",
  info: "M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18zM12 11v5M12 7.500v.5",
  settings: "M4 7h10M18 7h2M4 17h2M10 17h10M16 5a2 2 0 1 0 0 4 2 2 0 0 0 0-4zM8 15a2 2 0 1 0 0 4 2 2 0 0 0 0-4z",
  person: "M12 4a4 4 0 1 0 0 8 4 4 0 0 0 0-8zM4 21a8 8 0 0 1 16 0",
  arrow: "M4 12h15M13 6l6 6-6 6",
  cross: "M6 6l12 12M18 6 6 18",
  documents: "M7 3h7l4 4v14H7zM14 3v4h4M10 12h5M10 16h5",
  chat: "M4 5h16v11H10l-4 4v-4H4zM8 9h8M8 12h5",
  download: "M12 4v11M7 11l5 5 5-5M5 20h14",
  bin: "M5 7h14M10 7V4h4v3M7 7l1 13h8l1-13M10.500 11v5M13.500 11v5",
  receipt: "M6 3h12v18l-3-2-3 2-3-2-3 2zM9 8h6M9 12h6",
  stamp: "M9 4a3 3 0 0 1 6 0c0 3-1.500 4-1.500 7H18v4H6v-4h4.500C10.500 8 9 7 9 4zM6 19h12",
  signal: "M4 19v-3M9 19v-6M14 19V9M19 19V5M4 4l16 16",
  message: "M3 5h18v14H3zM3 6l9 7 9-7",
  waiting: "M12 4a8 8 0 1 0 0 16 8 8 0 0 0 0-16zM12 8v4l3 2",
  check: "M5 12.500 10 17.500 19 7",
};

/**
 * @param {string} name
 * @returns {SVGSVGElement}
 */
export function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  path.setAttribute("d", ICONS[name] ?? "");
  svg.append(path);
  return svg;
}
