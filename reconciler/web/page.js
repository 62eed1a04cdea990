"use strict";
// Puts into its place what the server says is new, and keeps times and "live" right.
const live = (words, lost) => {
  const place = document.getElementById("live");
  place.textContent = words;
  place.classList.toggle("lost", lost);
};
let connected = false;
const said = () => connected
  ? live("Live.", false)
  : live("The page is not connected: what is shown may be old.", true);
const times = () => {
  for (const one of document.querySelectorAll("time")) {
    const then = new Date(one.dateTime), seconds = (Date.now() - then) / 1000;
    const words = seconds < 120 ? `${Math.max(0, Math.floor(seconds))} s ago`
      : seconds < 7200 ? `${Math.floor(seconds / 60)} min ago`
      : seconds < 172800 ? `${Math.floor(seconds / 3600)} h ago`
      : `${Math.floor(seconds / 86400)} d ago`;
    if (one.textContent !== words) {
      one.textContent = words;
      one.title = then.toLocaleString();
    }
  }
};
const source = new EventSource("events");
source.addEventListener("look", (event) => {
  for (const [name, html] of Object.entries(JSON.parse(event.data))) {
    document.getElementById(name).innerHTML = html;
  }
  times();
  said();
});
source.onopen = () => { connected = true; said(); };
source.onerror = () => { connected = false; said(); };
setInterval(times, 1000);
times();
