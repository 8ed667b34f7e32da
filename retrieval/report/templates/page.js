"use strict";
(() => {
  const root = document.documentElement;
  const plots = Array.from(document.querySelectorAll(".plot"));
  const figures = new Map(plots.map((plot) => [plot, document.getElementById(plot.id + "-figure").textContent]));

  // Colours stand in the figures as names of CSS variables, so that they follow the scheme of the page.
  const painted = (text) => {
    const style = getComputedStyle(root);
    return JSON.parse(text, (key, value) =>
      key.endsWith("color") && typeof value === "string" && value.startsWith("--") ? style.getPropertyValue(value).trim() : value);
  };

  const draw = () => plots.forEach((plot) => {
    const figure = painted(figures.get(plot));
    figure.layout.font.family = getComputedStyle(document.body).fontFamily;
    if (plot.clientWidth < 500) figure.layout.font.size = 10;
    Plotly.react(plot, figure.data, figure.layout, { displayModeBar: false, responsive: true });
  });

  draw();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  addEventListener("beforeprint", () => { root.classList.add("paper"); document.querySelectorAll("details").forEach((one) => { one.open = true; }); draw(); });
  addEventListener("afterprint", () => { root.classList.remove("paper"); draw(); });
})();
