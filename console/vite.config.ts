import react from "@vitejs/plugin-react";
import { defineConfig } from "vite";

const server = process.env.HOLON_URL ?? "http://127.0.0.1:8080";

export default defineConfig({
  plugins: [react()],
  build: {
    target: "es2022",
    // The content security policy forbids data: addresses, so nothing is inlined.
    assetsInlineLimit: 0,
    sourcemap: false,
  },
  server: {
    proxy: {
      "/v1": { target: server, ws: true },
      "/.well-known": server,
      "/openapi.json": server,
      "/docs": server,
    },
  },
});
