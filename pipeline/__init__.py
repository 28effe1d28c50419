"""How the work is run: parameters, tables, shards, runner, graph, flow and command line. Imports no torch."""
