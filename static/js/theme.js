// Light, dark, or as the system: set before the first paint. A classic script, so that it blocks.
(() => {
  const root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)");
  const order = ["system", "light", "dark"];
  let choice = "system";
  try {
    const kept = localStorage.getItem("runyard:theme");
    if (order.includes(kept)) choice = kept;
  } catch { /* no storage: as the system */ }

  function apply() {
    const dark = choice === "dark" || (choice === "system" && system.matches);
    root.dataset.bsTheme = dark ? "dark" : "light";
    root.dataset.themeChoice = choice;
    root.dispatchEvent(new CustomEvent("themechange"));
  }

  function label() {
    const words = { system: "as the system", light: "light", dark: "dark" };
    for (const button of document.querySelectorAll("[data-theme-toggle]")) {
      button.setAttribute("aria-label", `Colours: ${words[choice]}`);
      button.title = `Colours: ${words[choice]}`;
    }
  }

  apply();
  system.addEventListener("change", apply);
  document.addEventListener("DOMContentLoaded", label);
  document.addEventListener("click", (event) => {
    if (!(event.target instanceof Element) || !event.target.closest("[data-theme-toggle]")) return;
    choice = order[(order.indexOf(choice) + 1) % order.length];
    try { localStorage.setItem("runyard:theme", choice); } catch { /* lasts for this page */ }
    apply();
    label();
  });
})();
