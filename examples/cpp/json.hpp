// JSON, read: as much of it as a bundle's manifest.json and tokenizer.json need.
#pragma once

#include <cstdlib>
#include <stdexcept>
#include <string>
#include <utility>
#include <variant>
#include <vector>

class Json {
 public:
  using List = std::vector<Json>;
  using Object = std::vector<std::pair<std::string, Json>>;  // in the file's order

  // Throws std::runtime_error where `text` is not JSON.
  static Json parse(const std::string& text) {
    size_t at = 0;
    Json value = read(text, at);
    skip(text, at);
    if (at != text.size()) fail("something follows the value", at);
    return value;
  }

  bool is_null() const { return std::holds_alternative<std::nullptr_t>(value_); }
  bool boolean() const { return get<bool>("true or false"); }
  double number() const { return get<double>("a number"); }
  const std::string& string() const { return get<std::string>("a string"); }
  const List& list() const { return get<List>("a list"); }
  const Object& object() const { return get<Object>("an object"); }

  // The member called `name`; null where there is none.
  const Json& operator[](const std::string& name) const {
    static const Json none;
    for (const auto& [key, value] : object())
      if (key == name) return value;
    return none;
  }

 private:
  std::variant<std::nullptr_t, bool, double, std::string, List, Object> value_ = nullptr;

  template <class Kind>
  const Kind& get(const char* what) const {
    if (const Kind* found = std::get_if<Kind>(&value_)) return *found;
    throw std::runtime_error(std::string("JSON: expected ") + what);
  }

  [[noreturn]] static void fail(const std::string& what, size_t at) {
    throw std::runtime_error("JSON: " + what + " at byte " + std::to_string(at));
  }

  static void skip(const std::string& text, size_t& at) {
    at = std::min(text.find_first_not_of(" \t\r\n", at), text.size());
  }

  static void expect(const std::string& text, size_t& at, const std::string& word) {
    if (text.compare(at, word.size(), word) != 0) fail("expected " + word, at);
    at += word.size();
  }

  static Json read(const std::string& text, size_t& at) {
    skip(text, at);
    Json result;
    switch (at < text.size() ? text[at] : '\0') {
      case '{': result.value_ = read_object(text, at); break;
      case '[': result.value_ = read_list(text, at); break;
      case '"': result.value_ = read_string(text, at); break;
      case 't': expect(text, at, "true"); result.value_ = true; break;
      case 'f': expect(text, at, "false"); result.value_ = false; break;
      case 'n': expect(text, at, "null"); break;
      default: {
        char* end = nullptr;
        result.value_ = std::strtod(text.c_str() + at, &end);
        if (end == text.c_str() + at) fail("expected a value", at);
        at = end - text.c_str();
      }
    }
    return result;
  }

  // Whether another element follows in a list or an object that ends with `close`.
  static bool more(const std::string& text, size_t& at, bool first, char close) {
    skip(text, at);
    if (at < text.size() && text[at] == close) return ++at, false;
    if (!first) expect(text, at, ",");
    return true;
  }

  static List read_list(const std::string& text, size_t& at) {
    List list;
    for (++at; more(text, at, list.empty(), ']');) list.push_back(read(text, at));
    return list;
  }

  static Object read_object(const std::string& text, size_t& at) {
    Object object;
    for (++at; more(text, at, object.empty(), '}');) {
      skip(text, at);
      std::string name = read_string(text, at);
      skip(text, at);
      expect(text, at, ":");
      object.emplace_back(std::move(name), read(text, at));
    }
    return object;
  }

  static std::string read_string(const std::string& text, size_t& at) {
    expect(text, at, "\"");
    std::string result;
    while (true) {
      if (at >= text.size()) fail("a string without an end", at);
      const char byte = text[at++];
      if (byte == '"') return result;
      if (byte != '\\') {
        result += byte;
        continue;
      }
      const char escape = at < text.size() ? text[at++] : '\0';
      static const std::string plain = "\"\\/bfnrt", meant = "\"\\/\b\f\n\r\t";
      if (const size_t found = plain.find(escape); found != std::string::npos && escape) {
        result += meant[found];
      } else if (escape == 'u') {
        char32_t point = read_hex(text, at);
        if (point >= 0xD800 && point < 0xDC00) {  // the first half of a pair
          expect(text, at, "\\u");
          const char32_t low = read_hex(text, at);
          if (low < 0xDC00 || low > 0xDFFF) fail("half a pair of surrogates", at);
          point = 0x10000 + ((point - 0xD800) << 10) + (low - 0xDC00);
        }
        append_utf8(result, point);
      } else {
        fail("unknown escape", at);
      }
    }
  }

  static char32_t read_hex(const std::string& text, size_t& at) {
    const std::string digits = text.substr(at, 4);
    if (digits.size() != 4 || digits.find_first_not_of("0123456789abcdefABCDEF") != digits.npos)
      fail("expected four hexadecimal digits", at);
    at += 4;
    return static_cast<char32_t>(std::stoul(digits, nullptr, 16));
  }

 public:
  static void append_utf8(std::string& to, char32_t point) {
    if (point < 0x80) {
      to += static_cast<char>(point);
      return;
    }
    const int more = point < 0x800 ? 1 : point < 0x10000 ? 2 : 3;
    to += static_cast<char>((0xFF00 >> (more + 1)) | (point >> (6 * more)));
    for (int rest = more - 1; rest >= 0; --rest)
      to += static_cast<char>(0x80 | ((point >> (6 * rest)) & 0x3F));
  }
};
