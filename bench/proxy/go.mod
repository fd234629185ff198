module halffull.dev/bench/proxy

go 1.21
