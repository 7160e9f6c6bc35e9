// Keeps the whole site, so that it works without a network after the first visit. VERSION changes with every file.
const VERSION = "VERSION_OF_THE_SITE";
const FILES = ["FILES_OF_THE_SITE"];
const OURS = `edge-ran-${self.registration.scope} `; // the caches are the whole origin's, and other sites keep theirs there
const NAME = OURS + VERSION;

self.addEventListener("install", (event) => {
  // Past the browser's own cache, which may still hold files of an older version.
  const files = FILES.map((file) => new Request(file, { cache: "reload" }));
  event.waitUntil(caches.open(NAME).then((cache) => cache.addAll(files)).then(() => self.skipWaiting()));
});

self.addEventListener("activate", (event) => {
  const old = async () => {
    for (const name of await caches.keys()) if (name !== NAME && name.startsWith(OURS)) await caches.delete(name);
    await self.clients.claim();
  };
  event.waitUntil(old());
});

self.addEventListener("fetch", (event) => {
  const { request } = event;
  const url = new URL(request.url);
  if (request.method !== "GET" || url.origin !== self.location.origin || url.pathname.includes("/api/")) return;
  const kept = async () => (await caches.open(NAME)).match(request, { ignoreSearch: true });
  // The server must see a token; without a network, what was kept serves.
  const fresh = async () => fetch(request).catch(async (error) => (await kept()) ?? Promise.reject(error));
  event.respondWith(url.searchParams.has("token") ? fresh() : kept().then((found) => found ?? fetch(request)));
});
