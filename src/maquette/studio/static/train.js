// Train: choices are kept as they are made; while a job works its pieces are fetched anew, at most twice a second.
const form = $("[data-train]"), live = $("#live"), project = (form?.dataset.train) || live?.dataset.project, base = `/api/projects/${project}`;

const prompts = () => $$("[name=prompt]", form).map(field => field.value);
async function keep(changes) {
  const told = await api("POST", `/ui/p/${project}/settings`, changes);
  if (!told) return null;
  fire("preflight");
  $("#summary").textContent = told.summary;
  const count = $("[data-changed]");
  count.textContent = told.changed; count.hidden = !told.changed;
  for (const [key, words] of Object.entries(told.costs)) for (const [part, text] of Object.entries(words)) { const at = $(`[data-cost="${key}-${part}"]`); if (at) at.textContent = text; }
  return told;
}
on("change", "[data-train] [name=preset]", input => keep({ preset: input.value }));
on("change", "[data-train] [name=base]", async input => { if (await keep({ base: input.value })) location.reload(); });
on("change", "[data-train] [name=prompt]", () => keep({ prompts: prompts() }));
on("submit", "[data-train]", (_, event) => event.preventDefault());

on("click", "[data-start]", async button => {
  if (await during(button, api("POST", `/ui/p/${project}/start`, { prompts: prompts() }))) location.href = `/p/${project}/train`; else fire("preflight");
});
on("click", "[data-smaller]", async button => { if (await keep(JSON.parse(button.dataset.smaller))) $("[data-start]").click(); });
// Advanced
const refill = () => htmx.trigger($("#advanced-body"), "studio:advanced");
on("change", "[data-option] [name]", async field => {
  const option = field.closest("[data-option]"), fault = $("[data-fault]", option);
  const answer = await fetch(`/ui/p/${project}/settings`, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ changed: { [field.name]: field.type === "checkbox" ? field.checked : field.value } }) });
  const told = await answer.json();
  Object.assign(fault, { hidden: answer.ok, textContent: answer.ok ? "" : told.error });
  field.setAttribute("aria-invalid", !answer.ok);
  if (answer.ok) { await keep({}); refill(); }
});
on("click", "[data-reset]", async button => { if (await keep({ reset: [button.dataset.reset] })) refill(); });
on("click", "[data-reset-all]", async () => { if (await keep({ reset: "all" })) refill(); });
function sift() {
  const words = $("[data-filter]").value.toLowerCase().split(/\s+/).filter(Boolean), only = $("[data-only-changed]").checked;
  let any = false;
  for (const group of $$("[data-group]")) {
    let some = false;
    for (const option of $$("[data-option]", group)) {
      option.hidden = !words.every(word => option.dataset.words.includes(word)) || (only && !option.matches(".changed"));
      some ||= !option.hidden;
    }
    group.hidden = !some; any ||= some;
  }
  $("[data-none]").hidden = any;
}
on("input", "[data-filter]", sift);
on("change", "[data-only-changed]", sift);
let sought = ["", false, null, 0];
document.addEventListener("htmx:beforeSwap", event => { if (event.target.id === "advanced-body" && $("[data-filter]")) sought = [$("[data-filter]").value, $("[data-only-changed]").checked, document.activeElement?.id, $("#advanced").scrollTop]; });
document.addEventListener("htmx:afterSwap", event => {
  if (event.target.id === "advanced-body") { [$("[data-filter]").value, $("[data-only-changed]").checked] = sought; sift(); (document.getElementById(sought[2]) || $("[data-filter]")).focus({ preventScroll: true }); $("#advanced").scrollTop = sought[3]; }
  if (event.target.id === "live") { for (const [name, opened] of unfolded) { const part = $(`[data-keep=${name}]`); if (part) part.open = opened; } toEnd(); }
});
// Live
const unfolded = new Map();
const toEnd = () => { const box = $("[data-scroll-end]"); if (box) box.scrollLeft = box.scrollWidth; };
let again = 0, stale = false;
function renew() {
  if (again) { stale = true; return; }
  again = setTimeout(() => { again = 0; if (stale) { stale = false; renew(); } }, 500);
  for (const part of $$("[data-keep]")) unfolded.set(part.dataset.keep, part.open);
  htmx.ajax("GET", `/ui/p/${project}/live`, { target: "#live", swap: "innerHTML" }).catch(() => {}); // without a connection: the next event asks again
}
if (live) {
  document.body.addEventListener("studio:job", renew);
  document.body.addEventListener("studio:ended", event => {
    if (event.detail.job !== live.dataset.job) return;
    location.href = event.detail.state === "failed" || !event.detail.state ? `/p/${project}/train` : `/p/${project}/results`;
  });
  toEnd();
} else document.body.addEventListener("studio:ended", () => fire("preflight"));
