"""Many runs of many methods, from training to one table: the experiments of the paper."""
