"""Names of the files in a folder of embeddings, for those who look at it without torch; `folder` writes them."""

OPTIONS_FILE = "embed.toml"
RECORD_FILE = "embed.json"
FAILURES_FILE = "failures.csv"
FINISHED_FILE = "finished.json"
