// What a service asks of Node.js: languages, certificates, TLS with itself, and threads.
import { readFileSync } from "node:fs";
import tls from "node:tls";
import { Worker, isMainThread, parentPort, workerData } from "node:worker_threads";
import { fileURLToPath } from "node:url";

if (!isMainThread) {
  parentPort.postMessage(workerData.reduce((a, b) => a + b, 0));
} else {
  console.log(process.arch, new Intl.NumberFormat("de-DE").format(1234.5));
  console.log("trusted", tls.rootCertificates.length > 100);
  const sums = await Promise.all(
    [1, 2, 3].map((n) => new Promise((done, failed) => {
      const worker = new Worker(fileURLToPath(import.meta.url), { workerData: [n, n * 10] });
      worker.on("message", done);
      worker.on("error", failed);
    })),
  );
  console.log("threads", sums.join(" "));
  const key = readFileSync("/app/key.pem"), cert = readFileSync("/app/cert.pem");
  const server = tls.createServer({ key, cert }, (socket) => socket.end("x")).listen(0, "127.0.0.1", () => {
    const socket = tls.connect({ port: server.address().port, host: "127.0.0.1", ca: cert, servername: "localhost" });
    socket.on("data", (data) => {
      console.log("tls", socket.getProtocol(), socket.authorized, String(data));
      server.close();
    });
  });
}
