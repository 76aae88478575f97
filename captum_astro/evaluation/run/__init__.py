"""The engine: samples are read, explained and scored, and the rows kept chunk by chunk so that a run can go on."""
