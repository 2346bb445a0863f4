module ebpf-blockchain/client

go 1.27
