// Embeds texts with an edgessl bundle, as an app on a device does it: OpenVINO, no Python.
//
//   embed BUNDLE [-o OUT.npy] [--tokens] < TEXTS          one text a line
//
// prints one vector a line, or writes them as float32 (n, dim) to OUT.npy; --tokens prints the
// token ids instead. Exit codes: 1 wrong use or an unusable text, 4 not a bundle for this program.
#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <sstream>
#include <string>
#include <vector>

#include <openvino/openvino.hpp>

#include "json.hpp"
#include "wordpiece.hpp"

namespace fs = std::filesystem;

// A directory that is no bundle, is damaged, or is not for this program.
struct BundleError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

Json read_json(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw BundleError("no " + path.string() + ": is this a bundle, and whole?");
  std::ostringstream content;
  content << file.rdbuf();
  return Json::parse(content.str());
}

// What this program needs of manifest.json.
struct Manifest {
  std::string variant, precision;
  size_t max_length, dimensions = 0;
  std::string prompt;

  explicit Manifest(const fs::path& bundle) {
    const Json json = read_json(bundle / "manifest.json");
    check(json["schema_version"].number() == 1, "its manifest has another version");
    check(json["target"].string() == "openvino",
          "it is for target " + json["target"].string() + "; export it with --target openvino");
    for (const auto& [name, entry] : json["files"].object()) {  // edgessl verify checks every byte
      std::error_code missing;
      const auto size = fs::file_size(bundle / name, missing);
      check(!missing && size == entry["size"].number(), name + " is missing or of another size");
    }
    const Json& encoder = json["encoder"];
    check(encoder["task"].string() == "text", "it embeds " + encoder["task"].string() + "s");
    for (const Json& output : encoder["outputs"].list())
      if (output["name"].string() == "sentence_embedding")
        dimensions = static_cast<size_t>(output["shape"].list().back().number());
    check(dimensions > 0, "it gives features and no vector");
    const Json& text = encoder["preprocessing"];
    check(!text["lowercase"].boolean() && text["pad_to"].is_null(),
          "its texts are prepared in a way that this program does not know");
    max_length = static_cast<size_t>(text["max_length"].number());
    check(max_length > 2, "max_length leaves no room for a word");
    prompt = text["prompt"].string();
    variant = json["variant"].string();
    precision = json["compatibility"]["inference_precision"].string();
  }

 private:
  static void check(bool good, const std::string& why) {
    if (!good) throw BundleError("this bundle cannot be used: " + why);
  }
};

class Encoder {
 public:
  explicit Encoder(const fs::path& bundle)
      : manifest(bundle), tokenize_(read_json(bundle / "tokenizer.json")) {
    ov::Core core;
    const auto able = core.get_property("CPU", ov::device::capabilities);
    const bool bf16 = manifest.precision == "bf16" &&
                      std::find(able.begin(), able.end(), "BF16") != able.end();
    // Unasked, OpenVINO would compute in bf16 on CPUs that have it.
    const auto precision = bf16 ? ov::element::bf16 : ov::element::f32;
    auto compiled = core.compile_model((bundle / "openvino_model.xml").string(), "CPU",
                                       ov::hint::performance_mode(ov::hint::PerformanceMode::LATENCY),
                                       ov::hint::inference_precision(precision));
    request_ = compiled.create_infer_request();
  }

  std::vector<int64_t> tokens(const std::string& text) const {
    return tokenize_(manifest.prompt + text, manifest.max_length);
  }

  // The vector of one text: pooled, and normalised where the bundle says so, by the graph itself.
  std::vector<float> embed(const std::string& text) {
    std::vector<int64_t> ids = tokens(text), mask(ids.size(), 1);
    const ov::Shape shape{1, ids.size()};
    request_.set_tensor("input_ids", ov::Tensor(ov::element::i64, shape, ids.data()));
    request_.set_tensor("attention_mask", ov::Tensor(ov::element::i64, shape, mask.data()));
    request_.infer();
    const ov::Tensor vector = request_.get_tensor("sentence_embedding");
    const float* values = vector.data<float>();
    return {values, values + vector.get_size()};
  }

  const Manifest manifest;

 private:
  WordPiece tokenize_;
  ov::InferRequest request_;
};

// NumPy's format, version 1: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
void write_npy(const std::string& path, const std::vector<float>& values, size_t width) {
  std::string header = "{'descr': '<f4', 'fortran_order': False, 'shape': (" +
                       std::to_string(values.size() / width) + ", " + std::to_string(width) + "), }";
  header.resize((10 + header.size() + 1 + 63) / 64 * 64 - 10, ' ');
  header.back() = '\n';
  const auto size = static_cast<uint16_t>(header.size());
  const char length[] = {static_cast<char>(size & 0xFF), static_cast<char>(size >> 8)};
  std::ofstream file(path, std::ios::binary);
  file.write("\x93NUMPY\x01\x00", 8).write(length, 2) << header;
  file.write(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float));
  if (!file.flush()) throw std::runtime_error("cannot write " + path);
}

int run(const std::vector<std::string>& arguments) {
  std::string bundle, output;
  bool tokens = false;
  for (size_t i = 0; i < arguments.size(); ++i) {
    if (arguments[i] == "--tokens") {
      tokens = true;
    } else if (arguments[i] == "-o" && i + 1 < arguments.size()) {
      output = arguments[++i];
    } else if (bundle.empty() && arguments[i][0] != '-') {
      bundle = arguments[i];
    } else {
      throw std::runtime_error("cannot use " + arguments[i]);
    }
  }
  if (bundle.empty()) throw std::runtime_error("use: embed BUNDLE [-o OUT.npy] [--tokens] < TEXTS");
  Encoder encoder(bundle);
  std::vector<float> all;
  for (std::string text; std::getline(std::cin, text);) {
    std::ostringstream line;
    if (tokens) {
      for (const int64_t id : encoder.tokens(text)) line << id << ' ';
    } else {
      const std::vector<float> vector = encoder.embed(text);
      if (!output.empty()) all.insert(all.end(), vector.begin(), vector.end());
      for (const float value : vector) line << value << ' ';
    }
    if (output.empty()) std::cout << line.str() << '\n';
  }
  if (!output.empty()) write_npy(output, all, encoder.manifest.dimensions);
  std::cerr << "variant " << encoder.manifest.variant << '\n';  // vectors of another do not compare
  return 0;
}

int main(int count, char** values) {
  try {
    return run({values + 1, values + count});
  } catch (const BundleError& error) {
    std::cerr << "embed: " << error.what() << '\n';
    return 4;
  } catch (const std::exception& error) {
    std::cerr << "embed: " << error.what() << '\n';
    return 1;
  }
}
