//! What adapters there are, as the Vulkan loader sees them.

use std::{env, ffi::CStr, fmt, path::Path};

use anyhow::{Context, Result, bail};
use ash::vk;

use crate::install::WANTED_MESA;

/// Narrows the choice to adapters with this in their name, in upper or lower case; the library reads it too.
const NAME_VARIABLE: &str = "WGCONV_ADAPTER";

/// Where Debian's and Ubuntu's Chromium keeps its software Vulkan driver.
const SWIFTSHADER_DRIVER: &str = "/usr/lib/chromium/vk_swiftshader_icd.json";
/// What makes SwiftShader the adapter, a second opinion beside Mesa's; by its name as well, since the variable may hold another.
pub const SWIFTSHADER: [(&str, &str); 2] = [("VK_ICD_FILENAMES", SWIFTSHADER_DRIVER), (NAME_VARIABLE, "SwiftShader")];

pub fn has_swiftshader() -> bool {
    Path::new(SWIFTSHADER_DRIVER).exists()
}

/// A Vulkan physical device.
#[derive(Clone, Debug, PartialEq)]
pub struct Adapter {
    name: String,
    kind: Kind,
    /// Such as `llvmpipe`; empty where the driver is older than Vulkan 1.2.
    driver: String,
    /// Such as `Mesa 25.0.7 (LLVM 19.1.7)`.
    driver_info: String,
    /// Vulkan's, major and minor.
    api: (u32, u32),
}

/// From the one to take first to the one to take last, which is the order of wgpu's high-performance choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Discrete,
    Integrated,
    Other,
    Virtual,
    Cpu,
}

impl Adapter {
    pub fn is_llvmpipe(&self) -> bool {
        self.driver == "llvmpipe" || self.name.starts_with("llvmpipe")
    }

    /// Whether its vectors are so many bits wide by themselves, as llvmpipe's name says.
    pub fn has_vectors_of(&self, bits: &str) -> bool {
        self.name.contains(&format!("{bits} bits"))
    }

    /// Whether it is Mesa's software driver in a version that is worth replacing.
    pub fn is_old_mesa(&self) -> bool {
        self.is_llvmpipe() && mesa_major(&self.driver_info).is_some_and(|major| major < WANTED_MESA)
    }
}

impl fmt::Display for Adapter {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let kind = match self.kind {
            Kind::Discrete => "discrete GPU",
            Kind::Integrated => "integrated GPU",
            Kind::Virtual => "virtual GPU",
            Kind::Other => "other",
            Kind::Cpu => "software",
        };
        write!(f, "{} ({kind}; Vulkan {}.{}", self.name, self.api.0, self.api.1)?;
        if !self.driver.is_empty() {
            write!(f, "; driver {} {}", self.driver, self.driver_info)?;
        }
        f.write_str(")")
    }
}

/// The adapter that the library will take, or `None` where there is none at all. An error where a name was asked for and
/// no adapter has it, or where Vulkan itself fails.
pub fn find() -> Result<Option<Adapter>> {
    let wanted = env::var(NAME_VARIABLE).unwrap_or_default();
    choose(enumerate()?, &wanted)
}

fn choose(adapters: Vec<Adapter>, wanted: &str) -> Result<Option<Adapter>> {
    let there: Vec<String> = adapters.iter().map(|adapter| adapter.to_string()).collect();
    let part = wanted.to_lowercase();
    let best =
        adapters.into_iter().filter(|adapter| adapter.name.to_lowercase().contains(&part)).min_by_key(|a| a.kind);
    if best.is_none() && !wanted.is_empty() {
        let there =
            if there.is_empty() { "there is none at all".into() } else { format!("there is {}", there.join(", ")) };
        bail!("{NAME_VARIABLE}={wanted} is in the name of no adapter: {there}");
    }
    Ok(best)
}

/// Every device of every driver that the Vulkan loader finds; none where there is no loader.
fn enumerate() -> Result<Vec<Adapter>> {
    // SAFETY: the library found by the loader's well-known name is the Vulkan loader, whose initialisers may be run.
    let Ok(entry) = (unsafe { ash::Entry::load() }) else {
        return Ok(vec![]);
    };
    // SAFETY: the function pointer comes from the loader itself, which is still loaded.
    let loader = unsafe { entry.try_enumerate_instance_version() }.context("asking the Vulkan loader's version")?;
    if loader.unwrap_or(vk::API_VERSION_1_0) < vk::API_VERSION_1_1 {
        bail!("the Vulkan loader is one of Vulkan 1.0; install a newer one (libvulkan1 on Debian and Ubuntu)");
    }
    let application = vk::ApplicationInfo::default().api_version(vk::API_VERSION_1_2);
    let info = vk::InstanceCreateInfo::default().application_info(&application);
    // SAFETY: `info` and what it points to outlive the call.
    let instance = match unsafe { entry.create_instance(&info, None) } {
        Ok(instance) => instance,
        // The loader's word for "no driver is installed".
        Err(vk::Result::ERROR_INCOMPATIBLE_DRIVER) => return Ok(vec![]),
        Err(error) => return Err(error).context("creating a Vulkan instance"),
    };
    // SAFETY: the instance lives until the next statement; the devices are used before that only.
    let adapters = unsafe { instance.enumerate_physical_devices() }
        .map(|devices| devices.into_iter().map(|device| describe(&instance, device)).collect());
    // SAFETY: nothing that belongs to the instance is left.
    unsafe { instance.destroy_instance(None) };
    match adapters {
        Err(vk::Result::ERROR_INITIALIZATION_FAILED) => Ok(vec![]),
        adapters => adapters.context("listing the Vulkan devices"),
    }
}

fn describe(instance: &ash::Instance, device: vk::PhysicalDevice) -> Adapter {
    let mut driver = vk::PhysicalDeviceDriverProperties::default();
    let mut properties = vk::PhysicalDeviceProperties2::default().push_next(&mut driver);
    // SAFETY: `device` is one of `instance`'s, which asked for Vulkan 1.2 and so has this function. A driver that does not
    // know the driver properties skips them and leaves the strings empty.
    unsafe { instance.get_physical_device_properties2(device, &mut properties) };
    let properties = properties.properties;
    let text = |field: Result<&CStr, _>| field.map(|text| text.to_string_lossy().into_owned()).unwrap_or_default();
    Adapter {
        name: text(properties.device_name_as_c_str()),
        kind: match properties.device_type {
            vk::PhysicalDeviceType::DISCRETE_GPU => Kind::Discrete,
            vk::PhysicalDeviceType::INTEGRATED_GPU => Kind::Integrated,
            vk::PhysicalDeviceType::VIRTUAL_GPU => Kind::Virtual,
            vk::PhysicalDeviceType::CPU => Kind::Cpu,
            _ => Kind::Other,
        },
        driver: text(driver.driver_name_as_c_str()),
        driver_info: text(driver.driver_info_as_c_str()),
        api: (vk::api_version_major(properties.api_version), vk::api_version_minor(properties.api_version)),
    }
}

/// The major version in a driver's own words: 25 of `Mesa 25.0.7-2 (LLVM 19.1.7)`.
fn mesa_major(driver_info: &str) -> Option<u32> {
    let version = driver_info.strip_prefix("Mesa ")?;
    version.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn adapter(name: &str, kind: Kind, driver_info: &str) -> Adapter {
        let driver = name.split(' ').next().unwrap_or_default().to_owned();
        Adapter { name: name.into(), kind, driver, driver_info: driver_info.into(), api: (1, 3) }
    }

    fn two() -> Vec<Adapter> {
        vec![
            adapter("llvmpipe (LLVM 19.1.7, 256 bits)", Kind::Cpu, "Mesa 25.0.7"),
            adapter("Radeon RX", Kind::Discrete, "Mesa 25.0.7"),
        ]
    }

    #[test]
    fn mesa_versions() {
        assert_eq!(mesa_major("Mesa 25.0.7-2~bpo12+1 (LLVM 19.1.7)"), Some(25));
        assert_eq!(mesa_major("Mesa 22.3.6 (LLVM 15.0.6)"), Some(22));
        assert_eq!(mesa_major("Mesa 25.1.0-devel (git-0123abcd)"), Some(25));
        assert_eq!(mesa_major("Mesa"), None);
        assert_eq!(mesa_major("Mesa git"), None);
        assert_eq!(mesa_major("550.54.14"), None);
    }

    #[test]
    fn only_old_software_drivers_are_old() {
        assert!(adapter("llvmpipe (LLVM 15)", Kind::Cpu, "Mesa 22.3.6").is_old_mesa());
        assert!(!adapter("llvmpipe (LLVM 19)", Kind::Cpu, "Mesa 25.0.7").is_old_mesa());
        assert!(!adapter("llvmpipe (LLVM 19)", Kind::Cpu, "").is_old_mesa());
        assert!(!adapter("Radeon RX", Kind::Discrete, "Mesa 22.3.6").is_old_mesa());
    }

    #[test]
    fn the_width_of_vectors_is_in_the_name() {
        assert!(two()[0].has_vectors_of("256") && !two()[0].has_vectors_of("512"));
    }

    #[test]
    fn hardware_comes_first() {
        assert_eq!(choose(two(), "").unwrap().unwrap().name, "Radeon RX");
        assert_eq!(choose(vec![], "").unwrap(), None);
    }

    #[test]
    fn a_name_narrows_the_choice() {
        assert!(choose(two(), "LLVMpipe").unwrap().unwrap().is_llvmpipe());
        let error = choose(two(), "GeForce").unwrap_err().to_string();
        assert!(error.contains("GeForce") && error.contains("Radeon RX") && error.contains("llvmpipe"), "{error}");
        let error = choose(vec![], "GeForce").unwrap_err().to_string();
        assert!(error.contains("none at all"), "{error}");
    }
}
