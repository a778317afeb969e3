/** The operator's panel: open, let in, send back, remove, attest, features, conclude. The server decides; it says why not. */

import { byId, confirmed, h, icon, pressed, setText } from "./dom.js";
import { elapsed, language, listing, plural, roleName, second, t } from "./i18n.js";

/** @typedef {import("./types.js").Screen} Screen */
/** @typedef {import("./types.js").SessionView} SessionView */
/** @typedef {import("./types.js").Person} Person */
/** @typedef {import("./join.js").App} App */
/** @typedef {import("./api.js").Session} Session */

const EXTENSIONS = [0, 24, 48, 72];
/** Features whose panels exist. @type {import("./types.js").Feature[]} */
const FEATURES = ["documents", "chat", "sharing"];

/**
 * @param {App} app
 * @param {Session} session
 * @returns {Screen}
 */
export function operatorPanel(app, session) {
  const opening = openingBox(app, session);
  const presence = h("p", { class: "presence", id: "presence", role: "status" });
  const people = h("ul", { class: "people" });
  /** @type {Map<string, PersonRow>} */
  const rows = new Map();
  const features = FEATURES.map((feature) => featureSwitch(app, session, feature));
  const steps = checklist(app, session);
  const health = recordingHealth(session);
  const conclusion = conclusionForm(app, session);

  /** @param {SessionView} view */
  const update = (view) => {
    opening.update(view);
    const present = view.missing.length === 0;
    presence.dataset.holds = String(present);
    presence.hidden = !view.opened;
    setText(
      presence,
      present
        ? t("operator.presence.holds")
        : t("operator.presence.missing", { who: listing(view.missing.map(roleName)) }),
    );
    for (const person of view.participants) {
      if (person.id === view.me.id) continue;
      let row = rows.get(person.id);
      if (!row) {
        row = new PersonRow(app, session, person);
        rows.set(person.id, row);
        people.append(row.element);
      }
      row.update(person, view);
    }
    for (const feature of features) feature.update(view);
    steps.update(view);
    health.tick();
    conclusion.update(view);
  };
  const timer = setInterval(() => {
    rows.forEach((row) => row.tick());
    health.tick();
    conclusion.tick();
  }, 1_000);

  const element = h(
    "aside",
    { id: "operator-panel", class: "panel", "aria-labelledby": "operator-heading" },
    h("h2", { id: "operator-heading" }, t("operator.heading")),
    opening.element,
    h("section", {}, h("h3", {}, t("operator.people")), presence, people),
    health.element,
    steps.element,
    h("section", {}, h("h3", {}, t("operator.features")), ...features.map((feature) => feature.element)),
    conclusion.element,
  );
  return { element, update, close: () => clearInterval(timer) };
}

/**
 * Who waits, and the way to let them in: for the operator who looks at the documents or the chat. Whoever comes is
 * announced whatever is shown.
 * @param {App} app
 * @param {Session} session
 * @returns {Screen}
 */
export function whoWaits(app, session) {
  const words = h("p", {});
  const buttons = h("div", { class: "actions" });
  const element = h("div", { id: "waits", class: "notice warning waits", hidden: true }, icon("waiting"), words, buttons);
  /** @type {Map<string, HTMLButtonElement>} */
  let known = new Map();
  /** Whose button was pressed. @type {string | null} */
  let admitting = null;

  /** @param {Person} person */
  const admission = (person) => {
    const label = t("operator.admit.name", { name: person.name });
    const button = h("button", { type: "button", class: "button primary small", "data-admit-now": person.id }, label);
    button.addEventListener("click", () => {
      admitting = person.id;
      void pressed(button, () => app.attempt(() => session.command("POST", `participants/${person.id}/admit`)));
    });
    return button;
  };

  /** @param {SessionView} view */
  const update = (view) => {
    const waiting = view.participants.filter((person) => mayBeAdmitted(person, view));
    const who = (/** @type {Person[]} */ people) =>
      plural("operator.waits", people.length, {
        who: listing(people.map((person) => `${person.name} (${roleName(person.role)})`)),
      });
    const before = known;
    const newcomers = waiting.filter((person) => !before.has(person.id));
    known = new Map(waiting.map((person) => [person.id, before.get(person.id) ?? admission(person)]));
    if (newcomers.length > 0) setText(byId("announce"), who(newcomers));
    for (const [id, button] of before) if (!known.has(id)) button.remove();
    for (const button of known.values()) if (!button.parentElement) buttons.append(button);
    // The button that was pressed is gone: whoever works by keyboard goes on beside it.
    if (admitting !== null && !known.has(admitting)) {
      admitting = null;
      const [next] = known.values();
      /** @type {HTMLElement | null} */
      const beside = next ?? document.querySelector(".side > .panel:not([hidden]) h2[tabindex]");
      if (document.activeElement === document.body) beside?.focus();
    }
    element.hidden = waiting.length === 0;
    if (waiting.length > 0) setText(words, who(waiting));
  };
  return { element, update };
}

/**
 * @param {Person} person
 * @param {SessionView} view
 */
function mayBeAdmitted(person, view) {
  return view.opened && person.place === "waiting" && person.id !== view.me.id;
}

/**
 * @param {App} app
 * @param {Session} session
 */
function openingBox(app, session) {
  const text = h("p", {}, t("operator.open.text"));
  const button = h("button", { id: "operator-open", class: "button primary", type: "button" });
  button.addEventListener("click", () => pressed(button, () => app.attempt(() => session.command("POST", "open"))));
  return {
    element: h("section", { class: "opening" }, text, button),
    /** @param {SessionView} view */
    update(view) {
      const inside = view.place === "inside";
      text.hidden = view.opened;
      button.hidden = view.opened && inside;
      button.parentElement?.toggleAttribute("hidden", button.hidden);
      setText(button, t(view.opened ? "operator.return" : "operator.open"));
    },
  };
}

/** One person, where they are, and what may be done. */
class PersonRow {
  /**
   * @param {App} app
   * @param {Session} session
   * @param {Person} person
   */
  constructor(app, session, person) {
    this.app = app;
    this.session = session;
    this.id = person.id;
    this.person = person;
    /** @type {SessionView | null} */
    this.view = session.view;
    this.where = h("p", { class: "where" });
    const { id } = person;
    this.admit = this.#button("admit", "primary", t("operator.admit"), () => this.#command("POST", "admit"));
    this.sendBack = this.#button("send-back", "", t("operator.sendBack"), () => this.#command("POST", "send-back"));
    this.remove = this.#button("remove", "danger", t("operator.remove"), () => this.#remove());
    this.attest = this.#button("attest", "", t("operator.beside"), () => this.#askBeside());
    this.withdraw = this.#button("withdraw", "", t("operator.withdraw"), () => this.#command("DELETE", "attest"));
    this.besideWhom = h("select", { id: `beside-${id}` });
    this.confirmAttest = this.#button("attest-confirm", "primary", t("operator.beside.confirm"), () => this.#attest());
    this.beside = h(
      "div",
      { class: "beside", hidden: true },
      h("div", { class: "field" }, h("label", { for: `beside-${id}` }, t("operator.beside.of")), this.besideWhom),
      this.confirmAttest,
    );
    this.element = h(
      "li",
      { "data-person": id, "data-role": person.role },
      h("p", { class: "who" }, h("strong", {}, person.name), h("span", { class: "hint" }, ` ${roleName(person.role)}`)),
      this.where,
      h("div", { class: "row-actions" }, this.admit, this.sendBack, this.attest, this.withdraw, this.remove),
      this.beside,
    );
  }

  /**
   * @param {Person} person
   * @param {SessionView} view
   */
  update(person, view) {
    this.person = person;
    this.view = view;
    this.element.dataset.place = person.place;
    const attested = person.attested_beside !== null;
    const inside = person.place === "inside";
    const mayShare =
      isCitizen(person) && !person.connected && person.place !== "removed" && this.#devicesInside().length > 0;
    this.admit.hidden = !mayBeAdmitted(person, view);
    this.sendBack.hidden = !inside;
    this.remove.hidden = !["admitted", "waiting", "inside"].includes(person.place);
    this.attest.hidden = attested || !view.opened || !mayShare;
    this.withdraw.hidden = !attested;
    if (this.attest.hidden) this.beside.hidden = true;
    this.tick();
  }

  tick() {
    setText(this.where, this.#whereabouts());
  }

  #whereabouts() {
    const { person, view } = this;
    const host = view?.participants.find((other) => other.id === person.attested_beside);
    if (host) return t("operator.place.beside", { name: host.name });
    switch (person.place) {
      case "waiting": {
        const time = elapsed(person.waiting_since ? this.session.now - Date.parse(person.waiting_since) : 0);
        return [t("operator.place.waiting", { time }), devicesWords(person.devices)].filter(Boolean).join(", ");
      }
      case "inside":
        return [t("operator.place.inside"), ...deviceTroubles(person)].join(", ");
      case "admitted":
        return t("operator.place.admitted");
      case "removed":
        return t("operator.place.removed");
      default:
        return t("operator.place.expected");
    }
  }

  /** Other citizens in the room, whose device may show a second person. */
  #devicesInside() {
    return this.view?.participants.filter((other) => other.id !== this.id && isCitizen(other) && other.connected) ?? [];
  }

  #askBeside() {
    const options = this.#devicesInside().map((other) => h("option", { value: other.id }, other.name));
    this.besideWhom.replaceChildren(...options);
    this.beside.hidden = !this.beside.hidden;
    if (!this.beside.hidden) this.besideWhom.focus();
  }

  async #attest() {
    const done = await this.#command("POST", "attest", { beside: this.besideWhom.value });
    if (done) this.beside.hidden = true;
  }

  async #remove() {
    if (await confirmed(t("operator.remove.confirm", { name: this.person.name }), t("operator.remove"), t("operator.cancel")))
      await this.#command("POST", "remove");
  }

  /**
   * @param {string} method
   * @param {string} what
   * @param {unknown} [json]
   */
  #command(method, what, json) {
    return this.app.attempt(() => this.session.command(method, `participants/${this.id}/${what}`, json));
  }

  /**
   * @param {string} name
   * @param {string} look
   * @param {string} label
   * @param {() => Promise<unknown> | void} act
   */
  #button(name, look, label, act) {
    const button = h(
      "button",
      { type: "button", class: `button small ${look}`, [`data-${name}`]: this.id, hidden: true },
      label,
    );
    // The same word stands in every row: whoever does not see the row hears the name too.
    button.setAttribute("aria-label", `${label}: ${this.person.name}`);
    if (name === "attest-confirm") button.hidden = false;
    button.addEventListener("click", () => pressed(button, act));
    return button;
  }
}

/** Those whose presence can be attested on another's device. @param {Person} person */
function isCitizen(person) {
  return person.role !== "operator" && person.role !== "guest";
}

/** What of someone inside does not arrive. @param {Person} person */
function deviceTroubles(person) {
  if (!person.connected) return [t("operator.noMedia")];
  return [
    ...(person.sources.includes("camera") ? [] : [t("operator.noCamera")]),
    ...(person.not_recorded.length > 0 ? [t("recording.noPicture")] : []),
    ...(person.sources.includes("microphone") ? [] : [t("operator.noMicrophone")]),
  ];
}

/**
 * What the device check found, for whoever is not seen and heard yet.
 * @param {{camera: boolean, microphone: boolean} | null | undefined} devices
 */
export function devicesWords(devices) {
  if (!devices) return "";
  if (devices.camera && devices.microphone) return t("operator.devices.ok");
  if (!devices.camera && !devices.microphone) return t("devices.trouble.both");
  return t(devices.camera ? "devices.trouble.microphone" : "devices.trouble.camera");
}

/**
 * The profile's steps; each tick is an entry of the ledger.
 * @param {App} app
 * @param {Session} session
 */
function checklist(app, session) {
  const list = h("ul", { class: "steps plain" });
  const element = h("section", { id: "steps", hidden: true }, h("h3", {}, t("operator.steps")), list);
  /** @type {Map<string, {box: HTMLInputElement, at: HTMLElement}>} */
  const known = new Map();
  return {
    element,
    /** @param {SessionView} view */
    update(view) {
      const steps = view.steps ?? [];
      element.hidden = steps.length === 0 || !view.opened;
      for (const step of steps) {
        let item = known.get(step.id);
        if (!item) {
          const box = h("input", { type: "checkbox", id: `step-${step.id}`, "data-step-id": step.id });
          const at = h("span", { class: "hint step-at" });
          box.addEventListener("change", async () => {
            const done = box.checked;
            if (!(await app.attempt(() => session.command("PUT", `steps/${step.id}`, { done })))) box.checked = !done;
          });
          const words = step.label[language] ?? step.label.it ?? step.id;
          list.append(h("li", { class: "check" }, box, h("label", { for: box.id }, words), at));
          item = { box, at };
          known.set(step.id, item);
        }
        item.box.checked = step.done_at !== null;
        setText(item.at, step.done_at ? second(step.done_at) : "");
      }
    },
  };
}

/**
 * How far the recording is on disk: what was said after that could still be lost.
 * @param {Session} session
 */
function recordingHealth(session) {
  const words = h("p", { id: "recording-health", class: "presence" });
  const element = h("section", { hidden: true }, h("h3", {}, t("operator.recording")), words);
  const tick = () => {
    const view = session.view;
    const until = view?.recording.durable_until;
    element.hidden = !view?.opened;
    words.dataset.holds = String(view?.recording.state === "on");
    if (!view) return;
    const state = t(`recording.${view.recording.state}`);
    if (!until) return setText(words, `${state}.`);
    const late = Math.max(0, Math.round((session.now - Date.parse(until)) / 1000));
    const behind = view.recording.state === "on" ? ` (${plural("operator.recording.behind", late)})` : "";
    setText(words, `${state}. ${t("operator.recording.until", { at: second(until) })}${behind}`);
  };
  return { element, tick };
}

/**
 * @param {App} app
 * @param {Session} session
 * @param {import("./types.js").Feature} feature
 */
function featureSwitch(app, session, feature) {
  const box = h("input", { type: "checkbox", "data-feature": feature, id: `feature-${feature}` });
  box.addEventListener("change", async () => {
    const on = box.checked;
    if (!(await app.attempt(() => session.command("PUT", `features/${feature}`, { on })))) box.checked = !on;
  });
  return {
    element: h("div", { class: "check" }, box, h("label", { for: box.id }, t(`operator.feature.${feature}`))),
    /** @param {SessionView} view */
    update(view) {
      box.checked = view.features.includes(feature);
    },
  };
}

/**
 * @param {App} app
 * @param {Session} session
 */
function conclusionForm(app, session) {
  const choices = h("div", { class: "outcomes" });
  const extension = h("select", { id: "extension" });
  extension.append(
    ...EXTENSIONS.map((n) =>
      h("option", { value: n }, n === 0 ? t("operator.extension.none") : t("operator.extension.hours", { n })),
    ),
  );
  const grant = h("p", { id: "grant", class: "presence", hidden: true });
  const submit = h("button", { id: "conclude", class: "button danger", type: "submit" }, t("operator.conclude.submit"));
  const form = h(
    "form",
    { class: "conclusion" },
    h("fieldset", {}, h("legend", {}, t("operator.conclude")), choices),
    grant,
    h("div", { class: "field" }, h("label", { for: "extension" }, t("operator.extension")), extension),
    submit,
  );
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const outcome = new FormData(form).get("outcome");
    if (!outcome) return app.say(t("operator.conclude.choose"), "no-outcome");
    const json = { outcome, extension_hours: Number(extension.value) };
    void pressed(submit, () => app.attempt(() => session.command("POST", "conclude", json)));
  });
  const tick = () => {
    const state = session.view?.grant ?? null;
    grant.hidden = state === null;
    if (state === null) return;
    // What was to come has come, even if the next view is still on its way.
    const due = state.state === "not_yet" && Date.parse(state.at) <= session.now;
    grant.dataset.holds = String(state.state === "possible" || due);
    grant.dataset.state = state.state;
    setText(grant, grantWords(state, session.now));
  };
  return {
    element: form,
    tick,
    /** @param {SessionView} view */
    update(view) {
      form.hidden = !view.opened;
      tick();
      if (choices.childElementCount > 0) return;
      choices.append(
        ...view.outcomes.map((outcome) =>
          h(
            "div",
            { class: "check" },
            h("input", { type: "radio", name: "outcome", value: outcome, id: `outcome-${outcome}` }),
            h("label", { for: `outcome-${outcome}` }, t(`outcome.${outcome}`)),
          ),
        ),
      );
    },
  };
}

/**
 * Whether the delegation may be granted, and why not yet.
 * @param {import("./types.js").Grant} grant
 * @param {number} now server's time, milliseconds
 */
function grantWords(grant, now) {
  switch (grant.state) {
    case "possible":
      return t("grant.possible");
    case "not_yet": {
      const left = Math.ceil((Date.parse(grant.at) - now) / 1000);
      return left > 0 ? plural("grant.not_yet", left) : t("grant.possible");
    }
    case "presence":
      return t("grant.presence", { who: listing(grant.missing.map(roleName)) });
    case "recording":
      return t("problem.recording-incomplete");
    default:
      return t("grant.not_live");
  }
}
