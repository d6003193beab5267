"use strict";
(() => {
  const root = document.documentElement, pictures = document.getElementById("pictures");
  const list = pictures.querySelector(".list"), cards = [...list.children];
  const methods = JSON.parse(pictures.dataset.methods);
  const choice = (name) => document.getElementById(name);

  // the theme follows the system until the button is pressed
  const theme = document.querySelector(".theme"), prefersDark = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : prefersDark.matches);
  const showTheme = () => theme.setAttribute("aria-pressed", isDark());
  theme.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    showTheme();
  });
  prefersDark.addEventListener("change", showTheme);
  showTheme();
  if (!cards.length) return;

  // divider: the pointer sets the value of a range input, which handles the keyboard itself
  const slider = (stage) => stage.querySelector("input");
  function show(stage) {
    const at = `${slider(stage).value}%`, left = stage.querySelector(".left");
    stage.style.setProperty("--at", at);
    stage.style.setProperty("--x", at);
    slider(stage).setAttribute("aria-valuetext", `${at} ${left ? left.dataset.source : ""}`);
  }
  function follow(stage, event) {
    const box = stage.getBoundingClientRect();
    const part = (place, from, length) => Math.min(100, Math.max(0, (100 * (place - from)) / length));
    slider(stage).value = part(event.clientX, box.left, box.width);
    stage.style.setProperty("--y", `${part(event.clientY, box.top, box.height)}%`);
    show(stage);
  }
  const stages = cards.map((card) => card.querySelector(".stage"));
  for (const stage of stages) {
    slider(stage).step = "any";
    slider(stage).addEventListener("input", () => show(stage));
    slider(stage).addEventListener("keydown", (event) => {
      const by = { ArrowLeft: -1, ArrowRight: 1, ArrowDown: -1, ArrowUp: 1, PageDown: -10, PageUp: 10 }[event.key];
      if (!by || event.altKey || event.ctrlKey || event.metaKey) return;
      event.preventDefault();
      slider(stage).value = Math.round(+slider(stage).value) + by * (event.shiftKey ? 10 : 1);
      show(stage);
    });
    stage.addEventListener("pointerdown", (event) => {
      if (event.button) return;
      event.preventDefault();
      slider(stage).focus({ preventScroll: true });
      stage.setPointerCapture(event.pointerId);
      stage.classList.add("held");
      follow(stage, event);
    });
    stage.addEventListener("pointermove", (event) => {
      if (stage.hasPointerCapture(event.pointerId)) follow(stage, event);
    });
    stage.addEventListener("lostpointercapture", () => stage.classList.remove("held"));
  }

  // the two sides: choosing the image of the other side swaps the two
  const sides = ["left", "right"], chosen = Object.fromEntries(sides.map((side) => [side, choice(side).value]));
  function compare() {
    for (const stage of stages) {
      for (const layer of stage.querySelectorAll(".layer"))
        for (const side of sides) layer.classList.toggle(side, layer.dataset.source === chosen[side]);
      show(stage);
    }
  }
  for (const side of sides)
    choice(side).addEventListener("change", () => {
      const other = sides.find((name) => name !== side), now = choice(side).value;
      if (now === chosen[other]) choice(other).value = chosen[other] = chosen[side];
      chosen[side] = now;
      compare();
      arrange();
    });
  choice("zoom").addEventListener("change", () => {
    for (const stage of stages) {
      stage.style.setProperty("--zoom", choice("zoom").value);
      stage.classList.toggle("zoomed", choice("zoom").value !== "1");
    }
  });

  // filter and order: by the method on the right, otherwise on the left, otherwise the first
  const scores = new Map(cards.map((card) => [card, JSON.parse(card.dataset.scores)]));
  function arrange() {
    const category = choice("show").value, [place, sign] = choice("order").value.split(":").map(Number);
    const method = Math.max(0, methods.indexOf(methods.includes(chosen.right) ? chosen.right : chosen.left));
    const score = (card) => scores.get(card)[method][place] ?? sign * Infinity;
    const order = choice("order").value ? [...cards].sort((a, b) => sign * (score(a) - score(b)) || 0) : cards;
    for (const card of cards) card.hidden = category !== "" && card.dataset.category !== category;
    if (order.some((card, i) => card !== list.children[i])) list.append(...order);
    const there = cards.filter((card) => !card.hidden).length;
    pictures.querySelector(".status").textContent = `${there} of ${cards.length} pictures`;
  }
  choice("show").addEventListener("change", arrange);
  choice("order").addEventListener("change", arrange);

  // next and previous card, below the sticky controls
  function go(by) {
    const line = pictures.querySelector(".sticky").offsetHeight;
    const there = [...list.children].filter((card) => !card.hidden);
    const distance = (card) => card.getBoundingClientRect().top - line;
    const to = by > 0 ? there.find((card) => distance(card) > 8) : there.findLast((card) => distance(card) < -8);
    if (to) to.scrollIntoView({ block: "start", behavior: "instant" });
    return to;
  }
  for (const button of pictures.querySelectorAll("[data-go]"))
    button.addEventListener("click", () => go(+button.dataset.go));
  pictures.addEventListener("keydown", (event) => {
    const by = { n: 1, p: -1 }[event.key.toLowerCase()];
    if (!by || event.altKey || event.ctrlKey || event.metaKey || event.target.matches("select")) return;
    event.preventDefault();
    const to = go(by);
    if (to) slider(to).focus({ preventScroll: true });
  });

  compare();
  arrange();
})();
