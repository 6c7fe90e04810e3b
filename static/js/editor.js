// The YAML editor: ace over the textarea, which stays what is submitted. Without ace, the textarea is the editor.

const text = document.getElementById("yaml");
const place = document.getElementById("editor");

// Deferred scripts run before modules that come after them, so ace is here if it is coming at all.
if (window.ace) {
  const { ace } = window;
  ace.config.set("useStrictCSP", true);
  ace.config.set("loadWorkerFromBlob", false);
  place.hidden = false;
  const editor = ace.edit(place, {
    value: text.value,
    mode: "ace/mode/yaml",
    useWorker: false,
    tabSize: 2,
    useSoftTabs: true,
    showPrintMargin: false,
    minLines: 18,
    maxLines: 40,
    fontSize: 14,
    highlightActiveLine: true,
    enableKeyboardAccessibility: true,
    textInputAriaLabel: "Configuration of the run, in YAML",
  });
  const theme = () => editor.setTheme(
    document.documentElement.dataset.bsTheme === "dark" ? "ace/theme/github_dark" : "ace/theme/github_light_default",
  );
  theme();
  document.documentElement.addEventListener("themechange", theme);
  text.hidden = true;
  editor.session.on("change", () => { text.value = editor.getValue(); });
  const line = Number(document.getElementById("refused")?.dataset.line);
  if (line) {
    editor.session.setAnnotations([{ row: line - 1, column: 0, type: "error",
      text: document.querySelector("#refused strong").textContent }]);
    editor.gotoLine(line, 0, false);
  }
  editor.focus();
}
