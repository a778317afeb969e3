/** What the server refuses, in the reader's words. */

import { has, t } from "./compliance-i18n.js";

/** @param {import("./api.js").Problem} problem */
export function problemWords(problem) {
  const key = `problem.${problem.slug}`;
  if (problem.slug === "invalid-field") return t("problem.invalid-field", { detail: problem.message });
  if (has(key)) return t(key);
  return problem.status >= 500 ? t("problem.unavailable") : t("problem.other", { detail: problem.message });
}
