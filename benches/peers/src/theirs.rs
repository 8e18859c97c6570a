//! burn's wgpu backend: its own device on the adapter that wgconv opened, its tensors, its operators.

use std::panic::{AssertUnwindSafe, catch_unwind};

use burn_backend::backend::ops::{ConvOptions, ConvTransposeOptions, DeformConvOptions, FloatTensorOps, ModuleOps};
use burn_backend::{Backend, BackendTypes, TensorData};
use burn_wgpu::graphics::AutoGraphicsApi;
use burn_wgpu::{CubeTensor, RuntimeOptions, Wgpu, WgpuBackend, WgpuDevice, wgpu};
use wgconv::ndarray::ArrayD;

use super::common::{Error, Result, one_line};
use super::operation::{Arrays, Operation, Operator};

type Device = <Wgpu as BackendTypes>::Device;

/// burn on one adapter.
pub struct Burn {
    device: Device,
    /// Runtime and compiler, such as `wgpu<wgsl>`.
    pub name: String,
}

/// A layer's arrays on burn's device, and the layer as burn's options.
pub struct Layer<'a> {
    operation: &'a Operation,
    input: CubeTensor,
    weight: CubeTensor,
    offset: Option<CubeTensor>,
    mask: Option<CubeTensor>,
}

/// Why burn does not run an operation; `None` where it does.
pub fn lacks(operation: &Operation) -> Option<&'static str> {
    let symmetric = operation.pads.iter().all(|(start, end)| start == end);
    match operation.operator {
        Operator::Involution => Some("burn has no involution"),
        Operator::ConvTranspose | Operator::DeformConv if !symmetric => Some("burn pads both sides alike here"),
        _ => None,
    }
}

impl Burn {
    /// Opens the adapter that is `wanted`, as burn itself opens it.
    pub fn open(wanted: &wgpu::AdapterInfo) -> Result<Self> {
        let device = selector(wanted)?;
        let options = RuntimeOptions::try_default().map_err(failed)?;
        let setup = burn_wgpu::try_init_setup::<AutoGraphicsApi>(&device, options).map_err(failed)?;
        let got = setup.adapter.get_info();
        if (&got.name, got.backend, &got.device_pci_bus_id) != (&wanted.name, wanted.backend, &wanted.device_pci_bus_id)
        {
            return Err(Error::Failed(format!("burn opened {} ({:?}) and not {}", got.name, got.backend, wanted.name)));
        }
        let device = Device::from(device);
        Ok(Self { name: Wgpu::name(&device), device })
    }

    /// Waits until what was launched has run.
    pub fn wait(&self) -> Result<()> {
        Wgpu::sync(&self.device).map_err(failed)
    }

    /// Puts a layer's arrays on the device.
    pub fn upload<'a>(&self, operation: &'a Operation, arrays: &Arrays) -> Result<Layer<'a>> {
        let optional = |array: &Option<ArrayD<f32>>| array.as_ref().map(|array| self.tensor(array)).transpose();
        Ok(Layer {
            operation,
            input: self.tensor(&arrays.input)?,
            weight: self.tensor(&arrays.weight)?,
            offset: optional(&arrays.offset)?,
            mask: optional(&arrays.mask)?,
        })
    }

    fn tensor(&self, array: &ArrayD<f32>) -> Result<CubeTensor> {
        let data = TensorData::new(array.iter().copied().collect::<Vec<f32>>(), array.shape().to_vec());
        caught(|| Wgpu::float_from_data(data, &self.device))
    }
}

impl Layer<'_> {
    /// Launches the layer.
    pub fn forward(&self) -> Result<CubeTensor> {
        let (o, x, w) = (self.operation, self.input.clone(), self.weight.clone());
        match (o.operator, o.kernel.len()) {
            (Operator::Conv, 1) => conv(o, |options| Wgpu::conv1d(x, w, None, options)),
            (Operator::Conv, 2) => conv(o, |options| Wgpu::conv2d(x, w, None, options)),
            (Operator::Conv, 3) => conv(o, |options| Wgpu::conv3d(x, w, None, options)),
            (Operator::ConvTranspose, 1) => conv_transpose(o, |options| Wgpu::conv_transpose1d(x, w, None, options)),
            (Operator::ConvTranspose, 2) => conv_transpose(o, |options| Wgpu::conv_transpose2d(x, w, None, options)),
            (Operator::ConvTranspose, 3) => conv_transpose(o, |options| Wgpu::conv_transpose3d(x, w, None, options)),
            (Operator::DeformConv, 2) => {
                let offset = self.offset.clone().ok_or_else(|| Error::Failed("deform_conv: no offset".into()))?;
                let (stride, dilation) = (o.axes("stride", &o.stride)?, o.axes("dilation", &o.dilation)?);
                let options = DeformConvOptions::new(stride, pads(o)?, dilation, o.groups, o.offset_groups);
                caught(|| Wgpu::deform_conv2d(x, offset, w, self.mask.clone(), None, options))
            }
            (operator, rank) => Err(Error::Failed(format!("burn has no {} of rank {rank}", operator.name()))),
        }
    }
}

/// Reads a result.
pub fn read(tensor: CubeTensor) -> Result<Vec<f32>> {
    let data = pollster::block_on(Wgpu::float_into_data(tensor)).map_err(failed)?;
    data.try_into_vec::<f32>().map_err(|error| Error::Failed(format!("{error:?}")))
}

fn conv<const R: usize>(o: &Operation, run: impl FnOnce(ConvOptions<R>) -> CubeTensor) -> Result<CubeTensor> {
    let (stride, dilation) = (o.axes("stride", &o.stride)?, o.axes("dilation", &o.dilation)?);
    let options = ConvOptions::new_with_padding(stride, o.axes("pads", &o.pads)?, dilation, o.groups);
    caught(|| run(options))
}

fn conv_transpose<const R: usize>(
    o: &Operation,
    run: impl FnOnce(ConvTransposeOptions<R>) -> CubeTensor,
) -> Result<CubeTensor> {
    let (stride, dilation) = (o.axes("stride", &o.stride)?, o.axes("dilation", &o.dilation)?);
    let more = o.axes("output_padding", &o.output_padding)?;
    let options = ConvTransposeOptions::new(stride, pads(o)?, more, dilation, o.groups);
    caught(|| run(options))
}

/// The padding of each axis, of both sides.
fn pads<const R: usize>(o: &Operation) -> Result<[usize; R]> {
    let pads: [(usize, usize); R] = o.axes("pads", &o.pads)?;
    Ok(pads.map(|(start, _)| start))
}

/// burn names an adapter by its kind and its place among those of that kind.
fn selector(wanted: &wgpu::AdapterInfo) -> Result<WgpuDevice> {
    use cubecl::device::WgpuDeviceKind as Kind;
    let (api, backend) = match wanted.backend {
        wgpu::Backend::Vulkan => (WgpuBackend::Vulkan, wgpu::Backends::VULKAN),
        wgpu::Backend::Metal => (WgpuBackend::Metal, wgpu::Backends::METAL),
        wgpu::Backend::Dx12 => (WgpuBackend::Dx12, wgpu::Backends::DX12),
        other => return Err(Error::Failed(format!("burn is not asked for adapters of {other:?} here"))),
    };
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    descriptor.backends = backend;
    let adapters = pollster::block_on(wgpu::Instance::new(descriptor).enumerate_adapters(backend));
    let alike = adapters.iter().map(wgpu::Adapter::get_info).filter(|info| info.device_type == wanted.device_type);
    let missing = || Error::Failed(format!("{} is not there a second time", wanted.name));
    let index = alike.into_iter().position(|info| info == *wanted).ok_or_else(missing)?;
    let kind = match wanted.device_type {
        wgpu::DeviceType::DiscreteGpu => Kind::DiscreteGpu(index),
        wgpu::DeviceType::IntegratedGpu => Kind::IntegratedGpu(index),
        wgpu::DeviceType::VirtualGpu => Kind::VirtualGpu(index),
        wgpu::DeviceType::Cpu => Kind::Cpu,
        wgpu::DeviceType::Other => Kind::Other(index),
    };
    Ok(WgpuDevice::new(kind).on(api))
}

/// burn panics where it cannot go on; that must not end the measurement of the other layers.
fn caught<T>(run: impl FnOnce() -> T) -> Result<T> {
    catch_unwind(AssertUnwindSafe(run)).map_err(|cause| {
        let text = cause.downcast_ref::<String>().map(String::as_str).or(cause.downcast_ref::<&str>().copied());
        failed(text.unwrap_or("panicked"))
    })
}

fn failed(error: impl std::fmt::Display) -> Error {
    Error::Failed(format!("burn: {}", one_line(&error.to_string())))
}
