// Live parts of the pages: the list of held calls, votes by others, countdowns by the server's clock.
// Nothing here is needed to decide, and nothing of an agent's text is ever parsed as script or link.
"use strict";

(() => {
  const root = document.documentElement;
  if (!("live" in root.dataset)) return;
  const plainTitle = document.title.replace(/^\(\d+\) /, "");
  const byId = (id) => document.getElementById(id);

  // The server's clock: its time at one moment of performance.now(), which no one can set.
  let clock = null;
  const sync = (now, at) => {
    const time = Date.parse(now);
    if (!Number.isNaN(time)) clock = { time, at };
  };
  const stamped = document.querySelector("[data-now]");
  if (stamped) {
    const [navigation] = performance.getEntriesByType("navigation");
    sync(stamped.dataset.now, navigation ? navigation.responseStart : 0);
  }
  const serverTime = () => clock.time + (performance.now() - clock.at);

  const format = (seconds) => {
    const pad = (n) => String(n).padStart(2, "0");
    const hours = Math.floor(seconds / 3600);
    const minutes = Math.floor(seconds / 60) % 60;
    return hours ? `${hours}:${pad(minutes)}:${pad(seconds % 60)}` : `${minutes}:${pad(seconds % 60)}`;
  };

  let over = false;
  const countDown = () => {
    if (!clock) return;
    for (const element of document.querySelectorAll("[data-deadline]")) {
      const left = (Date.parse(element.dataset.deadline) - serverTime()) / 1000;
      element.textContent = format(Math.max(0, Math.ceil(left)));
      element.classList.toggle("soon", left < 60);
      if ("final" in element.dataset && left <= 0 && !over) {
        over = true;
        // Only the server ends an approval; this asks what became of it.
        setTimeout(refresh, 1500);
      }
    }
  };

  const announce = (text) => { byId("announce").textContent = text; };

  const badge = (pending) => {
    root.dataset.pending = String(pending);
    const element = byId("badge");
    element.textContent = String(pending);
    element.hidden = pending === 0;
    document.title = pending ? `(${pending}) ${plainTitle}` : plainTitle;
  };

  // Pages come from the server whole; the changed part is taken over. DOMParser runs no scripts.
  const load = async () => {
    const response = await fetch(location.pathname, {
      credentials: "same-origin",
      redirect: "error",
      headers: { "Keybroker-Refresh": "1" },
    });
    if (!response.ok) throw new Error(String(response.status));
    return new DOMParser().parseFromString(await response.text(), "text/html");
  };

  const refreshList = async () => {
    const held = byId("held");
    const fresh = (await load()).getElementById("held");
    const focused = document.activeElement;
    const before = new Map([...held.querySelectorAll("[data-id]")].map((e) => [e.dataset.id, e]));
    const added = [];
    for (const entry of fresh.querySelectorAll("[data-id]")) {
      const known = before.get(entry.dataset.id);
      if (!known) {
        entry.classList.add("new");
        added.push(entry.querySelector("h2").textContent);
      } else if (known.querySelector(".by").textContent === entry.querySelector(".by").textContent) {
        // Kept as it is, and with it the focus.
        entry.replaceWith(known);
      }
    }
    held.replaceChildren(...fresh.childNodes);
    if (held.contains(focused)) focused.focus({ preventScroll: true });
    sync(fresh.dataset.now, performance.now());
    countDown();
    if (added.length) announce(`${added.length === 1 ? "Held now" : `${added.length} held now`}: ${added.join("; ")}`);
  };

  const refreshCard = async () => {
    const card = byId("card");
    const page = await load();
    const fresh = page.getElementById("card");
    if (fresh.dataset.state !== card.dataset.state) {
      location.reload();
      return;
    }
    const standing = byId("standing");
    const changed = page.getElementById("standing");
    if (changed.textContent !== standing.textContent) {
      standing.replaceChildren(...changed.childNodes);
      announce("The votes have changed.");
    }
    sync(fresh.dataset.now, performance.now());
    over = false;
  };

  const OPEN = new Set(["pending", "approved", "executing"]);
  let busy = false;
  let again = false;
  async function refresh() {
    const part = byId("held") ? refreshList : OPEN.has(byId("card")?.dataset.state) ? refreshCard : null;
    if (!part) return;
    if (busy) {
      again = true;
      return;
    }
    busy = true;
    try {
      do {
        again = false;
        await part();
      } while (again);
    } catch {
      state(false);
    } finally {
      busy = false;
    }
  }

  const state = (live) => {
    const element = byId("live");
    if (!element) return;
    element.hidden = false;
    element.classList.toggle("off", !live);
    byId("live-text").textContent = live ? "Live" : "Not connected, trying again";
  };

  const handle = ({ kind, data }) => {
    if (kind === "open" || kind === "lost") state(kind === "open");
    if (kind === "signed-out") location.assign("/login");
    if (data?.now && kind === "clock") sync(data.now, performance.now());
    if (kind === "approvals") {
      sync(data.now, performance.now());
      badge(data.pending);
      refresh();
    }
  };

  // One stream for all tabs: a browser keeps only six connections to a host over HTTP/1.1.
  const channel = "BroadcastChannel" in window ? new BroadcastChannel("keybroker") : null;
  if (channel) channel.onmessage = (message) => handle(message.data);
  const listen = () => new Promise(() => {
    const tell = (message) => { handle(message); channel?.postMessage(message); };
    const source = new EventSource("/events");
    source.onopen = () => tell({ kind: "open" });
    source.onerror = () => {
      tell({ kind: "lost" });
      if (source.readyState === EventSource.CLOSED) setTimeout(() => location.reload(), 5000);
    };
    for (const kind of ["approvals", "clock"]) {
      source.addEventListener(kind, (e) => tell({ kind, data: JSON.parse(e.data) }));
    }
    source.addEventListener("signed-out", () => {
      source.close();
      tell({ kind: "signed-out" });
    });
  });
  if (navigator.locks && channel) {
    navigator.locks.request("keybroker-events", listen);
    // Another tab may hold the stream, and may have told of a change while this page loaded.
    state(true);
    refresh();
  } else {
    listen();
  }

  // On a narrow screen the way to the decision goes once the decision is in view.
  const jump = document.querySelector(".jump");
  if (jump) {
    new IntersectionObserver(([entry]) => { jump.hidden = entry.isIntersecting; }).observe(byId("vote"));
  }

  // A page out of the back-forward cache is old.
  addEventListener("pageshow", (e) => { if (e.persisted) location.reload(); });
  document.addEventListener("visibilitychange", () => { if (!document.hidden) refresh(); });
  setInterval(countDown, 500);
  countDown();
})();
