"use strict";
(() => {
  const gallery = document.querySelector(".gallery");
  const form = gallery.querySelector("form");
  if (!form) return;
  const list = gallery.querySelector(".cards");
  const cards = [...list.children].map((node, drawn) => ({
    node, drawn, phrase: node.querySelector(".phrase").textContent.toLowerCase(),
    score: Number(node.dataset.score), area: Number(node.dataset.area),
  }));
  const orders = {
    drawn: (a, b) => a.drawn - b.drawn,
    score: (a, b) => a.score - b.score || a.drawn - b.drawn,
    area: (a, b) => a.area - b.area || a.drawn - b.drawn,
    phrase: (a, b) => (a.phrase < b.phrase ? -1 : a.phrase > b.phrase ? 1 : a.drawn - b.drawn),
  };
  const [phrase, score, order] = ["phrase", "score", "order"].map((name) => form.elements.namedItem(name));
  const filter = () => {
    const wanted = phrase.value.trim().toLowerCase();
    const least = Number(score.value);
    form.querySelector("output").value = least.toFixed(2);
    let shown = 0;
    for (const card of cards) {
      const fits = card.phrase.includes(wanted) && card.score >= least - 1e-9;
      card.node.hidden = !fits;
      shown += fits;
    }
    gallery.querySelector(".shown").textContent = shown < cards.length ? `${shown} of ${cards.length} shown` : "";
    gallery.querySelector(".none").hidden = shown > 0;
  };
  form.addEventListener("input", filter);
  form.addEventListener("submit", (event) => event.preventDefault());
  order.addEventListener("change", () => list.append(...[...cards].sort(orders[order.value]).map((card) => card.node)));
  form.hidden = false;
  filter();
})();
