"""Controllers that ship as experts, each for one robot: read one to write your own."""
