/** What every form of the console does alike. */

import { h } from "./dom.js";

/**
 * Whether all that must be filled in is: `data-missing` on a field has the words for when it is not. The browser's own
 * words are in its language, not the page's, and cover what stands below.
 * @param {HTMLFormElement} form to have `novalidate`
 */
export function complete(form) {
  /** @type {HTMLElement | null} */
  let first = null;
  /** @type {NodeListOf<HTMLInputElement | HTMLTextAreaElement>} */
  const needed = form.querySelectorAll("[data-missing]");
  for (const field of needed) {
    const id = `${field.id}-missing`;
    form.querySelector(`#${id}`)?.remove();
    const missing = field instanceof HTMLInputElement && field.type === "checkbox" ? !field.checked : field.value.trim() === "";
    const described = (field.getAttribute("aria-describedby") ?? "").split(" ").filter((one) => one !== "" && one !== id);
    if (missing) described.push(id);
    field.setAttribute("aria-describedby", described.join(" "));
    field.setAttribute("aria-invalid", String(missing));
    if (!missing) continue;
    (field.closest("label") ?? field).after(h("p", { class: "field-error", id }, field.dataset.missing));
    first ??= field;
  }
  first?.focus();
  return first === null;
}
