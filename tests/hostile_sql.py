"""Statements of SQL that mean no good: those that may not be run, those that want all memory, those that never end."""

MIB = 1024 * 1024
RECURSION = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) "

REFUSED = {
    "files and extensions": {
        "attach": "ATTACH 'made.db' AS other",
        "attach in memory": "ATTACH ':memory:' AS other",
        "attach by uri": "ATTACH 'file:made.db?mode=rwc' AS other",
        "detach": "DETACH temp",
        "vacuum": "VACUUM",
        "vacuum into": "VACUUM INTO 'made.db'",
        "vacuum into an uri": "VACUUM INTO 'file:made.db?mode=rwc'",
    },
    "pragmas": {
        "pragma that writes": "PRAGMA query_only = 0",
        "pragma of the schema": "PRAGMA writable_schema = 1",
        "pragma of the journal": "PRAGMA journal_mode = DELETE",
        "pragma of the directory": "PRAGMA temp_store_directory = '.'",
        "pragma of the heap": "PRAGMA hard_heap_limit = 0",
        "pragma of the version": "PRAGMA user_version = 99",
        "pragma that reads": "PRAGMA table_info(version)",
        "checkpoint": "PRAGMA wal_checkpoint(TRUNCATE)",
        "pragma function": "SELECT * FROM pragma_table_info('version')",
        "pragma function without columns": "SELECT 1 FROM pragma_database_list",
        "pragma function of functions": "SELECT name FROM pragma_function_list",
    },
    "extensions": {
        "extension": "SELECT load_extension('./made.so')",
        "tokenizer": "SELECT fts3_tokenizer('simple')",
        "tokenizer by address": "SELECT fts3_tokenizer('simple', x'4141414141414141')",
        "writefile": "SELECT writefile('made.db', 'x')",
        "edit": "SELECT edit('x', 'touch made.db')",
    },
    "writes": {
        "insert": "INSERT INTO source (job, label) VALUES ('a', 'b')",
        "insert into a view": "INSERT INTO files (path) VALUES ('a')",
        "update": "UPDATE version SET mode = 511 RETURNING 1",
        "delete": "DELETE FROM snapshot RETURNING 1",
        "replace": "REPLACE INTO source VALUES (1, 'a', 'b')",
        "write behind with": "WITH a AS (SELECT 1) DELETE FROM version",
        "drop": "DROP TABLE version",
        "drop a view": "DROP VIEW files",
        "alter": "ALTER TABLE version ADD COLUMN x",
        "create table": "CREATE TABLE made (x)",
        "create temporary table": "CREATE TEMP TABLE made (x)",
        "create table as select": "CREATE TABLE made AS SELECT * FROM version",
        "create temporary view": "CREATE TEMP VIEW made AS SELECT 1",
        "create temporary trigger": "CREATE TEMP TRIGGER made INSERT ON version BEGIN SELECT 1; END",
        "create index": "CREATE INDEX made ON version (hash)",
        "create virtual table": "CREATE VIRTUAL TABLE temp.made USING fts5 (x)",
        "create virtual table of pages": "CREATE VIRTUAL TABLE temp.made USING dbstat",
        "reindex": "REINDEX",
        "analyze": "ANALYZE",
        "explain a write": "EXPLAIN DELETE FROM version",
    },
    "transactions": {
        "savepoint": "SAVEPOINT a",
        "begin": "BEGIN IMMEDIATE",
        "commit": "COMMIT",
        "two statements": "SELECT 1; SELECT 2",
        "a write behind a select": "SELECT 1; DELETE FROM version",
    },
    "what is no view": {
        "schema": "SELECT sql FROM sqlite_master",
        "schema by its other name": "SELECT count(*) FROM sqlite_schema",
        "temporary schema": "SELECT sql FROM sqlite_temp_master",
        "jobs": "SELECT text FROM job_version",
        "jobs counted": "SELECT count(*) FROM job_version",
        "contents as stored": "SELECT * FROM main.content",
        "facts": "SELECT value FROM fact",
        "facts in an expression": "SELECT path FROM files WHERE path = (SELECT value FROM fact)",
        "facts behind a name": "WITH entries AS (SELECT value FROM fact) SELECT * FROM entries",
        "spans": "SELECT lines FROM span",
        "database pages": "SELECT * FROM dbstat",
        "raw pages": "SELECT data FROM sqlite_dbpage",
        "statements under way": "SELECT sql FROM sqlite_stmt",
        "bytecode": "SELECT * FROM bytecode('SELECT 1')",
    },
    "what makes no sense": {
        "nothing": "",
        "a comment": "-- nothing",
        "many parentheses": "SELECT " + "(" * 5_000 + "1" + ")" * 5_000,
        "a deep expression": "SELECT 1" + " + 1" * 20_000,
        "deep negation": "SELECT " + "~" * 20_000 + "1",
        "many columns": "SELECT " + ", ".join("1" for _ in range(30_000)),
        "many tables": "SELECT 1 FROM " + ", ".join("files" for _ in range(100)),
        "many parts": " UNION ALL ".join("SELECT 1" for _ in range(10_000)),
        "deep views": "SELECT * FROM " + "(SELECT * FROM " * 3_000 + "files" + ")" * 3_000,
        "a NUL": "SELECT 1\0; DELETE FROM version",
        "a megabyte": "SELECT " + "x" * MIB,
        "a megabyte of parts": "SELECT " + "1, " * (MIB // 3) + "1",
        "a megabyte of nothing": " " * MIB,
        "a lone surrogate": "SELECT '\udcff'",
        "a broken expression": "SELECT path REGEXP '(' FROM files",
        "no path": "SELECT path_key(NULL)",
        "a cast to what is no text": "SELECT path_text(path) FROM files",
        "a lone surrogate in a cast": "SELECT path REGEXP CAST(x'28ff' AS TEXT) FROM files",
    },
}
"""Ends at once, with exit code 2."""

GREEDY = {
    "zeroblob": "SELECT zeroblob(400000000)",
    "zeroblob in hex": "SELECT hex(zeroblob(15000000))",
    "randomblob": "SELECT length(randomblob(400000000))",
    # Of 400 million letters SQLite makes null, and says nothing; two halves that are allowed are too long together.
    "printf": "SELECT printf('%.*c', 15000000, 'x') || printf('%.*c', 15000000, 'x')",
    "replace": "SELECT replace(hex(zeroblob(5000)), '0', hex(zeroblob(50000)))",
    "nested replace": "SELECT length(replace(replace(printf('%.*c', 4000, 'x'), 'x', printf('%.*c', 4000, 'y')), "
    "'y', 'zz'))",
    "concatenation": f"{RECURSION}, s(x, t) AS (SELECT 1, 'xxxx' UNION ALL SELECT x + 1, t || t FROM s) "
    "SELECT max(length(t)) FROM s",
    "group_concat": f"{RECURSION} SELECT group_concat(printf('%.*c', 1000, 'x')) FROM c",
    "json": f"{RECURSION} SELECT json_group_array(printf('%.*c', 1000, 'x')) FROM c",
    "deep json": f"{RECURSION}, j(t) AS (SELECT '[' UNION ALL SELECT t || t FROM j) SELECT max(json_valid(t)) FROM j",
    "values of 15 MB": ", ".join(["SELECT printf('%.*c', 15000000, 'x')"] + ["printf('%.*c', 15000000, 'x')"] * 30),
    "wide letters": ", ".join(
        ["SELECT char(128512) || printf('%.*c', 15000000, 'x')"] + ["char(128512) || printf('%.*c', 15000000, 'x')"] * 5
    ),
    "endless rows of 15 MB": f"{RECURSION} SELECT printf('%.*c', 15000000, 'x') FROM c",
    "sort beyond memory": f"{RECURSION} SELECT x, zeroblob(1000) FROM c ORDER BY -x",
    "distinct beyond memory": f"{RECURSION} SELECT DISTINCT x || printf('%.*c', 1000, 'x') FROM c",
    "groups beyond memory": f"{RECURSION} SELECT x, count(*) FROM c GROUP BY x || printf('%.*c', 1000, 'x')",
    "window beyond memory": f"{RECURSION} SELECT sum(x) OVER (ORDER BY x DESC) FROM c",
    "a set beyond memory": "WITH RECURSIVE c(x) AS (SELECT zeroblob(1000) UNION SELECT randomblob(1000) FROM c) "
    "SELECT count(*) FROM c",
}
"""Wants more memory than it is given, and is told so, or runs out of time; exit code 1 or 2."""

ENDLESS = {
    "recursion": f"{RECURSION} SELECT count(*) FROM c",
    "join": "SELECT count(*) FROM " + ", ".join(f"entries e{number}" for number in range(20)),
    "join of values": "WITH v(x) AS (SELECT value FROM json_each('[1,2,3,4,5,6,7,8,9]')) SELECT count(*) FROM "
    + ", ".join(f"v v{number}" for number in range(20)),
    "instr": "SELECT instr(printf('%.*c', 15000000, 'x'), printf('%.*c', 7000000, 'x') || 'y')",
    "like": "SELECT printf('%.*c', 15000000, 'a') LIKE '%' || printf('%.*c', 40000, 'a') || 'b'",
    "glob": "SELECT printf('%.*c', 15000000, 'a') GLOB '*' || printf('%.*c', 40000, 'a') || 'b'",
    "regular expression": "SELECT printf('%.*c', 100, 'a') REGEXP '(a*)*(a*)*(a*)*b$'",
    "regular expression over paths": "SELECT path_matches('re:(.*)*(.*)*(.*)*b$', zeroblob(100))",
    "rows": f"{RECURSION} SELECT x FROM c",
}
"""Never ends by itself; exit code 1."""
