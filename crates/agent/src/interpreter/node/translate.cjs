// What V8 does not evaluate as it stands: TypeScript, and `import` and `export` of either language. The
// compiler is the image's own, the package `typescript`; it is loaded when it is needed first.
"use strict";
const { createRequire } = require("module");
const fs = require("fs");
const path = require("path");
const vm = require("vm");

// Lines of what was translated, by the name of its cell, for the places in errors.
const maps = new Map();
const MAPS = 1000;

let compiler;
let options;

function find() {
  const prefix = path.join(path.dirname(process.execPath), "..");
  const places = [process.cwd(), ...["/usr/local", "/usr", prefix].map((dir) => path.join(dir, "lib"))];
  for (const place of places) {
    try {
      return createRequire(path.join(place, "cell.js")).resolve("typescript");
    } catch {
      // The next one.
    }
  }
  return null;
}

exports.missing = () =>
  find() ? null : "it has no package `typescript` (`npm install --global typescript`, or in the context's directory)";

function load() {
  if (compiler) return compiler;
  const place = find();
  if (!place) {
    const error = new SyntaxError("`import` and `export` need the package `typescript`, which is not installed: use require(), or npm install typescript");
    throw error;
  }
  compiler = require(place);
  const ts = compiler;
  options = {
    target: ts.ScriptTarget.ES2022,
    module: ts.ModuleKind.ESNext,
    moduleDetection: ts.ModuleDetectionKind.Force,
    allowJs: true,
    sourceMap: true,
    jsx: ts.JsxEmit.React,
    ...own(ts),
  };
  return ts;
}

// What the context's own tsconfig.json says of decorators: there are two kinds of them.
function own(ts) {
  try {
    const text = fs.readFileSync(path.join(process.cwd(), "tsconfig.json"), "utf8");
    const { compilerOptions = {} } = ts.parseConfigFileTextToJson("tsconfig.json", text).config ?? {};
    const { experimentalDecorators, emitDecoratorMetadata } = compilerOptions;
    return { experimentalDecorators, emitDecoratorMetadata };
  } catch {
    return {};
  }
}

// Without the compiler: what V8 takes as it stands, and calls of `import`.
function withoutCompiler(name, code) {
  try {
    new vm.Script(code, { filename: name });
  } catch (error) {
    // Anything else is told when it is evaluated, or is none there, as `await`.
    if (/import statement|import declaration|import\.meta|'export'/.test(error.message)) load();
  }
  return { code: code.replace(/\bimport\s*\(/g, "__import("), hasValue: true };
}

exports.translate = (name, code, typescript) => {
  if (!typescript && !/\b(import|export)\b/.test(code)) return { code, hasValue: true };
  if (!typescript && !find()) return withoutCompiler(name, code);
  const ts = load();
  let hasValue = true;
  const noValue = new Set([
    ts.SyntaxKind.EnumDeclaration,
    ts.SyntaxKind.ModuleDeclaration,
    ts.SyntaxKind.ClassDeclaration,
    ts.SyntaxKind.FunctionDeclaration,
    ts.SyntaxKind.VariableStatement,
    ts.SyntaxKind.InterfaceDeclaration,
    ts.SyntaxKind.TypeAliasDeclaration,
    ts.SyntaxKind.ImportDeclaration,
    ts.SyntaxKind.ImportEqualsDeclaration,
    ts.SyntaxKind.ExportDeclaration,
  ]);
  const before = (context) => (source) => {
    const last = source.statements.findLast((one) => !ts.isEmptyStatement(one));
    hasValue = last !== undefined && !noValue.has(last.kind);
    return withoutModules(ts, context, source);
  };
  const after = () => (source) =>
    ts.factory.updateSourceFile(source, source.statements.filter((one) => !ts.isExportDeclaration(one)));
  const { outputText, sourceMapText, diagnostics } = ts.transpileModule(code, {
    fileName: name,
    compilerOptions: options,
    reportDiagnostics: true,
    transformers: { before: [before], after: [after] },
  });
  const wrong = diagnostics.find((one) => one.category === ts.DiagnosticCategory.Error);
  if (wrong) {
    const error = new SyntaxError(ts.flattenDiagnosticMessageText(wrong.messageText, "\n"));
    error.stack = "";
    if (wrong.file && wrong.start !== undefined) {
      const { line, character } = wrong.file.getLineAndCharacterOfPosition(wrong.start);
      error.place = { line: line + 1, column: character + 1 };
    }
    throw error;
  }
  if (maps.size >= MAPS) maps.delete(maps.keys().next().value);
  maps.set(name, decode(JSON.parse(sourceMapText).mappings));
  return { code: outputText.replace(/\n?\/\/# sourceMappingURL=.*\s*$/, ""), hasValue };
};

// `import` becomes a call, which V8 evaluates, and goes first, as its binding would; `export` goes.
function withoutModules(ts, context, source) {
  const { factory } = context;
  const load = (specifier, ...rest) =>
    factory.createCallExpression(factory.createIdentifier("__import"), undefined, [specifier, ...rest]);
  const visit = (node) => {
    if (ts.isCallExpression(node) && node.expression.kind === ts.SyntaxKind.ImportKeyword) {
      const [specifier, ...rest] = node.arguments.map((one) => ts.visitNode(one, visit));
      return load(specifier, ...rest);
    }
    return ts.visitEachChild(node, visit, context);
  };
  const imports = [];
  const others = [];
  for (const statement of source.statements) {
    if (ts.isImportDeclaration(statement)) {
      imports.push(...importing(ts, factory, statement, load));
    } else if (ts.isImportEqualsDeclaration(statement) && ts.isExternalModuleReference(statement.moduleReference)) {
      const call = factory.createCallExpression(factory.createIdentifier("require"), undefined, [
        statement.moduleReference.expression,
      ]);
      imports.push(declare(ts, factory, statement.name, call));
    } else if (ts.isExportAssignment(statement)) {
      others.push(ts.setTextRange(factory.createExpressionStatement(ts.visitNode(statement.expression, visit)), statement));
    } else if (!ts.isExportDeclaration(statement)) {
      others.push(ts.visitNode(withoutExport(ts, factory, statement), visit));
    }
  }
  return factory.updateSourceFile(source, ts.setTextRange(factory.createNodeArray([...imports, ...others]), source.statements));
}

function withoutExport(ts, factory, statement) {
  if (!ts.canHaveModifiers(statement) || !statement.modifiers) return statement;
  const kept = statement.modifiers.filter(
    (one) => one.kind !== ts.SyntaxKind.ExportKeyword && one.kind !== ts.SyntaxKind.DefaultKeyword,
  );
  return kept.length === statement.modifiers.length ? statement : factory.replaceModifiers(statement, kept);
}

function declare(ts, factory, target, value) {
  const one = factory.createVariableDeclaration(target, undefined, undefined, value);
  return factory.createVariableStatement(undefined, factory.createVariableDeclarationList([one], ts.NodeFlags.Const));
}

function importing(ts, factory, statement, load) {
  const loaded = factory.createAwaitExpression(load(statement.moduleSpecifier));
  const clause = statement.importClause;
  if (!clause) return [ts.setTextRange(factory.createExpressionStatement(loaded), statement)];
  if (clause.isTypeOnly) return [];
  const bindings = [];
  const bind = (from, to) => bindings.push(factory.createBindingElement(undefined, from, to));
  if (clause.name) bind("default", clause.name);
  const named = clause.namedBindings;
  if (named && ts.isNamespaceImport(named)) {
    const whole = declare(ts, factory, named.name, loaded);
    const parts = bindings.length ? [declare(ts, factory, factory.createObjectBindingPattern(bindings), named.name)] : [];
    return [ts.setTextRange(whole, statement), ...parts];
  }
  for (const one of named ? named.elements : []) {
    if (!one.isTypeOnly) bind(one.propertyName ?? one.name.text, one.name);
  }
  return [ts.setTextRange(declare(ts, factory, factory.createObjectBindingPattern(bindings), loaded), statement)];
}

// The mappings of a source map (ECMA-426): for each line its columns, and the line and column each
// came from. All count from 0.
function decode(text) {
  const digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  let [, line, column] = [0, 0, 0];
  return text.split(";").map((row) => {
    let at = 0;
    const places = [];
    for (const segment of row.split(",").filter(Boolean)) {
      const fields = [];
      let [value, shift] = [0, 0];
      for (const letter of segment) {
        const digit = digits.indexOf(letter);
        value |= (digit & 31) << shift;
        shift += 5;
        if (!(digit & 32)) {
          fields.push(value & 1 ? -(value >> 1) : value >> 1);
          [value, shift] = [0, 0];
        }
      }
      at += fields[0];
      if (fields.length < 4) continue;
      line += fields[2];
      column += fields[3];
      places.push([at, line, column]);
    }
    return places;
  });
}

exports.place = (name, line, column) => {
  const rows = maps.get(name);
  if (!rows) return { line, column };
  let found = null;
  for (const [at, ...place] of rows[line - 1] ?? []) {
    if (at <= column - 1 || !found) found = place;
  }
  return found ? { line: found[0] + 1, column: found[1] + 1 } : { line, column };
};

exports.original = (frame) =>
  frame.replace(/(cell-\d+\.[jt]s):(\d+):(\d+)/g, (_, name, line, column) => {
    const place = exports.place(name, Number(line), Number(column));
    return `${name}:${place.line}:${place.column}`;
  });
