// Runs before the first paint, so that a chosen theme does not flash.
try {
  const theme = localStorage.getItem("zonda.theme");
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
} catch {
  // without storage the system's theme holds
}
