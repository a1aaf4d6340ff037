"""How much memory of a GPU is free."""

import torch


def free_gpu_memory(device: torch.device) -> int:
    """Bytes that this process can still take on a GPU, with what its allocator holds unused."""
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(torch.cuda.mem_get_info(device)[0] + unused)
