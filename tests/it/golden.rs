//! The golden vectors of PyTorch and torchvision.
