"""How the work is run: parameters, tables, shards, the runner, the graph, the flow and the command line. Imports no torch."""
