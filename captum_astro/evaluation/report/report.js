// Tables are sorted by clicking a header; clicking a method highlights its curves, and a picture enlarges it.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  const value = (row, column) => row.cells[column].dataset.value;
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    head.setAttribute("aria-sort", "none");
    button.addEventListener("click", () => {
      const now = head.getAttribute("aria-sort");
      const next = now === "none" ? head.dataset.first : now === "ascending" ? "descending" : "ascending";
      heads.forEach((other) => other.setAttribute("aria-sort", other === head ? next : "none"));
      const sign = next === "ascending" ? 1 : -1;
      const body = table.tBodies[0];
      const rows = [...body.rows].sort((a, b) => {
        const [x, y] = [value(a, column), value(b, column)];
        if (column === 0) return sign * x.localeCompare(y);
        if (x === "" || y === "") return (x === "") - (y === ""); // rows without a value come last
        return sign * (x - y);
      });
      body.append(...rows);
    });
  });
  table.dataset.sortable = "ready";
}
for (const section of document.querySelectorAll(".curves")) {
  const buttons = [...section.querySelectorAll("button[data-line]")];
  for (const button of buttons) {
    button.disabled = false;
    button.addEventListener("click", () => {
      const pressed = String(button.getAttribute("aria-pressed") === "false");
      for (const one of buttons) { // the same method in every legend
        if (one.dataset.line === button.dataset.line) one.setAttribute("aria-pressed", pressed);
      }
      const lit = buttons.filter((one) => one.getAttribute("aria-pressed") === "true").map((one) => one.dataset.line);
      for (const line of section.querySelectorAll("g[data-line]")) {
        line.classList.toggle("dim", lit.length > 0 && !lit.includes(line.dataset.line));
        line.classList.toggle("lit", lit.includes(line.dataset.line));
      }
    });
  }
}
const dialog = document.querySelector("dialog");
for (const button of document.querySelectorAll("button.enlarge")) {
  button.disabled = false;
  button.title = "Enlarge";
  button.addEventListener("click", () => {
    const sample = button.closest(".sample");
    const shown = [...new Set([sample.querySelector("img"), button.firstElementChild])]; // the image, and the map
    dialog.querySelector(".pair").replaceChildren(...shown.map((image) => image.cloneNode()));
    const words = [...sample.firstElementChild.children, button.nextElementSibling].map((part) => part.innerText.trim());
    dialog.querySelector("p").textContent = words.join("; ").replaceAll("\n", ", ");
    dialog.showModal();
  });
}
dialog.querySelector("button").addEventListener("click", () => dialog.close());
dialog.addEventListener("click", (event) => event.target === dialog && dialog.close()); // beside it
