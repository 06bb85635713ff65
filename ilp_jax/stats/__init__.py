"""Statistics of every example at every visit: their columns, writer and reader."""
