-- What was withdrawn before a run's files are made is taken out of the run.
GRANT DELETE ON run_examples TO penstock_worker;
