// Results: two pictures under one divider, by mouse, touch and keys; another checkpoint; longer; merge.
const room = $("[data-results]"), job = room?.dataset.job, dialog = $("#compare");
let first = null, from = null;
function divide(at) {
  at = Math.min(100, Math.max(0, at));
  $("[data-clip]").setAttribute("x", at); $("[data-clip]").setAttribute("width", 100 - at);
  $("[data-line]").setAttribute("d", `M${at} 0V100`);
  $("[data-slider]").value = at;
  $("[data-slider]").setAttribute("aria-valuetext", `${Math.round(at)} % ${$("[data-left-title]").textContent}`);
}
function compare(left, right) {
  $("[data-left]").src = left.dataset.cell; $("[data-left]").alt = `${left.dataset.title}: ${left.dataset.prompt}`;
  $("[data-right]").setAttribute("href", right.dataset.cell);
  $("[data-left-title]").textContent = left.dataset.title; $("[data-right-title]").textContent = right.dataset.title;
  $("[data-prompt-text]").textContent = left.dataset.prompt === right.dataset.prompt ? left.dataset.prompt : `${left.dataset.prompt} / ${right.dataset.prompt}`;
  divide(50);
  open(dialog, from); $("[data-slider]").focus();
}
function pick(cell) {
  if (!first) { first = cell; cell.setAttribute("aria-pressed", "true"); return; }
  first.setAttribute("aria-pressed", "false");
  const other = first; first = null; from = cell;
  if (other !== cell) compare(other, cell);
}
on("click", "[data-cell]", pick); on("input", "[data-slider]", slider => divide(+slider.value));
let sliding = false; const slide = event => { const box = $("[data-compare]").getBoundingClientRect(); divide(100 * (event.clientX - box.left) / box.width); };
on("pointerdown", "[data-compare]", (box, event) => { sliding = true; box.setPointerCapture(event.pointerId); slide(event); });
on("pointermove", "[data-compare]", (_, event) => { if (sliding) slide(event); });
for (const type of ["pointerup", "pointercancel"]) document.addEventListener(type, () => { sliding = false; });

on("click", "[data-choose]", async button => {
  const told = await api("POST", `/api/jobs/${job}/choice`, button.dataset.choose ? { step: +button.dataset.choose } : {});
  if (told) location.reload();
});
on("change", "[data-run]", select => { location.search = `?job=${select.value}`; });
on("submit", "[data-longer]", async (form, event) => {
  event.preventDefault();
  if (form.reportValidity() && await api("POST", `/api/jobs/${job}/continue`, { steps: +form.steps.value, fresh: form.fresh.checked })) location.href = `/p/${room.dataset.project}/train`;
});
const weigh = input => { $("output", input.parentNode).value = (+input.value).toFixed(2); };
$$("[data-merge] [type=range]").forEach(weigh); on("input", "[data-merge] [type=range]", weigh);
on("submit", "[data-merge]", async (form, event) => {
  event.preventDefault();
  if (await api("POST", "/api/merge", { jobs: [job, form.other.value], weights: [+form.a.value, +form.b.value] })) location.href = "/queue";
});
document.addEventListener("keydown", event => {
  const cell = document.activeElement.closest?.("[data-cell]");
  if (!room || typing(event.target) || event.ctrlKey || event.metaKey || event.altKey || $("dialog[open]")) return;
  const rows = $$("[data-testid=grid] tbody tr").map(row => $$("[data-cell]", row));
  if (/^[1-9]$/.test(event.key) && rows[0]?.[+event.key]) $(`[data-choose="${rows[0][+event.key].dataset.step}"]`)?.click();
  if (!cell) return;
  const at = rows.findIndex(row => row.includes(cell)), place = rows[at].indexOf(cell);
  const next = { ArrowLeft: rows[at][place - 1], ArrowRight: rows[at][place + 1], ArrowUp: rows[at - 1]?.[place], ArrowDown: rows[at + 1]?.[place] }[event.key];
  if (next) { event.preventDefault(); next.focus(); }
  if (event.key.toLowerCase() === "c" && rows[at][0] !== cell) { from = cell; compare(rows[at][0], cell); }
});
