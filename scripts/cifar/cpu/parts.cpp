// The parts of the networks in bfloat16, for training on a processor with AVX-512 BF16, and AMX where it is there.
//
// Training is bound by memory here: a tensor of a large stage does not fit in any cache that a core has to itself. So
// normalisation and ReLU are computed where the next convolution reads, and again where the gradients need them; sums
// over a tensor are taken where it is written.
#include "convolutions.h"
#include "masks.h"
#include "normalisation.h"

PYBIND11_MODULE(TORCH_EXTENSION_NAME, module) {
  module.def("sums_of", &sums_of);
  module.def("line_of", &line_of);
  module.def("norm_relu", &norm_relu);
  module.def("finish", &finish);
  module.def("gradient_sums", &gradient_sums);
  module.def("norm_relu_apply", &norm_relu_apply);
  module.def("conv_forward", &conv_forward);
  module.def("conv_backward", &conv_backward);
  module.def("conv_apply", &conv_apply);
  module.def("gate_forward", &gate_forward);
  module.def("gate_backward", &gate_backward);
  module.def("pool_forward", &pool_forward);
  module.def("pool_backward", &pool_backward);
  module.def("conv3x3_kernel", &conv3x3_kernel);
}
