// Greets over HTTP; with `--once` it asks itself one time and ends.
import { serve } from "@hono/node-server";
import { Hono } from "hono";

const app = new Hono();
app.get("/hello/:name", (context) => context.json({ hello: context.req.param("name"), node: process.versions.node }));

const once = process.argv.includes("--once");
const server = serve({ fetch: app.fetch, port: once ? 0 : 8080 }, async ({ port }) => {
  if (!once) {
    console.log(`listening on port ${port}`);
    return;
  }
  const answer = await fetch(`http://127.0.0.1:${port}/hello/Ada`);
  console.log(answer.status, (await answer.json()).hello);
  server.close();
});
process.on("SIGTERM", () => server.close());
