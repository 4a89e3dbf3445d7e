// A page by HTTPS, with the trust that the image has.
const page = await fetch(process.argv[2]);
console.log(page.status, await page.text());
