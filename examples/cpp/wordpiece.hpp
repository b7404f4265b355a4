// BERT's tokenizer: what tokenizer.json says with a BertNormalizer, a BertPreTokenizer and a
// WordPiece model, token for token as the `tokenizers` library does it.
//
// Limits: other kinds of tokenizer.json are refused. Some 500 characters that joined Unicode in
// recent years (marks and punctuation of rare scripts) are treated as Python's Unicode data has
// them, where the library has older data.
#pragma once

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <stdexcept>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "json.hpp"
#include "unicode_tables.hpp"

class WordPiece {
 public:
  // Throws std::runtime_error for a tokenizer.json of another kind.
  explicit WordPiece(const Json& tokenizer) {
    const Json& model = tokenizer["model"];
    const Json& normalizer = tokenizer["normalizer"];
    require(model, "type", "WordPiece");
    require(normalizer, "type", "BertNormalizer");
    require(tokenizer["pre_tokenizer"], "type", "BertPreTokenizer");
    for (const auto& [token, id] : model["vocab"].object())
      vocabulary_[token] = static_cast<int64_t>(id.number());
    prefix_ = model["continuing_subword_prefix"].string();
    longest_ = static_cast<size_t>(model["max_input_chars_per_word"].number());
    clean_ = normalizer["clean_text"].boolean();
    chinese_ = normalizer["handle_chinese_chars"].boolean();
    lower_ = normalizer["lowercase"].boolean();
    const Json& strip = normalizer["strip_accents"];
    strip_ = strip.is_null() ? lower_ : strip.boolean();
    for (const Json& added : tokenizer["added_tokens"].list())
      added_.emplace_back(added["content"].string(), static_cast<int64_t>(added["id"].number()));
    unknown_ = id(model["unk_token"].string());
    first_ = id("[CLS]");
    last_ = id("[SEP]");
  }

  // The ids of `text` (UTF-8), special ones included, cut at `max_length`.
  std::vector<int64_t> operator()(const std::string& text, size_t max_length) const {
    std::vector<int64_t> ids{first_};
    for (size_t at = 0; at < text.size() && ids.size() < max_length - 1;) {
      const auto [place, token] = next_added(text, at);
      words(decode(text.substr(at, place - at)), ids);
      if (token != nullptr) ids.push_back(token->second);
      at = token != nullptr ? place + token->first.size() : text.size();
    }
    ids.resize(std::min(ids.size(), max_length - 1));
    ids.push_back(last_);
    return ids;
  }

 private:
  using Text = std::u32string;
  using Added = std::pair<std::string, int64_t>;

  std::unordered_map<std::string, int64_t> vocabulary_;
  std::vector<Added> added_;
  std::string prefix_;
  size_t longest_;
  bool clean_, chinese_, lower_, strip_;
  int64_t unknown_, first_, last_;

  static void require(const Json& part, const char* key, const std::string& kind) {
    const std::string found = part.is_null() ? "none" : part[key].string();
    if (found != kind)
      throw std::runtime_error("tokenizer.json has " + found + ", this program knows " + kind);
  }

  int64_t id(const std::string& token) const {
    const auto found = vocabulary_.find(token);
    if (found == vocabulary_.end()) throw std::runtime_error("the vocabulary lacks " + token);
    return found->second;
  }

  // Where the next special token that is written out in `text` begins, and which one it is.
  std::pair<size_t, const Added*> next_added(const std::string& text, size_t from) const {
    std::pair<size_t, const Added*> best{text.size(), nullptr};
    for (const Added& added : added_)
      if (const size_t at = text.find(added.first, from); at < best.first) best = {at, &added};
    return best;
  }

  // Words and their pieces; `ids` grows.
  void words(const Text& text, std::vector<int64_t>& ids) const {
    Text word;
    const auto flush = [&] {
      if (!word.empty()) pieces(word, ids);
      word.clear();
    };
    for (const char32_t point : normalized(text)) {
      if (is_space(point)) {
        flush();
      } else if (in(unicode::kPunctuation, point)) {
        flush();
        pieces({point}, ids);
      } else {
        word += point;
      }
    }
    flush();
  }

  // The longest piece of the vocabulary from the left, again and again; else unknown.
  void pieces(const Text& word, std::vector<int64_t>& ids) const {
    std::vector<int64_t> found;
    for (size_t start = 0; start < word.size() && word.size() <= longest_;) {
      size_t end = word.size();
      for (; end > start; --end) {
        std::string piece = start > 0 ? prefix_ : "";
        for (size_t i = start; i < end; ++i) Json::append_utf8(piece, word[i]);
        if (const auto entry = vocabulary_.find(piece); entry != vocabulary_.end()) {
          found.push_back(entry->second);
          break;
        }
      }
      if (end == start) break;
      start = end;
      if (start == word.size()) {
        ids.insert(ids.end(), found.begin(), found.end());
        return;
      }
    }
    ids.push_back(unknown_);
  }

  Text normalized(const Text& text) const {
    Text result;
    for (const char32_t point : text) {
      if (clean_ && in(unicode::kDropped, point)) continue;
      if (chinese_ && is_chinese(point)) {
        result += U' ';
        changed(point, result);
        result += U' ';
      } else {
        changed(point, result);
      }
    }
    return result;
  }

  void changed(char32_t point, Text& to) const {
    Text bare;
    if (!strip_) {
      bare = {point};
    } else if (point >= 0xAC00 && point < 0xD7A4) {  // a Hangul syllable is two or three letters
      const char32_t index = point - 0xAC00;
      bare = {0x1100 + index / 588, 0x1161 + index % 588 / 28};
      if (index % 28 != 0) bare += 0x11A7 + index % 28;
    } else {
      append(unicode::kWithoutMarks, point, bare);
    }
    for (const char32_t part : bare) {
      if (lower_)
        append(unicode::kLower, part, to);
      else
        to += part;
    }
  }

  template <size_t N>
  static void append(const unicode::Change (&table)[N], char32_t point, Text& to) {
    const auto* found =
        std::lower_bound(std::begin(table), std::end(table), point,
                         [](const unicode::Change& c, char32_t p) { return c.from < p; });
    if (found == std::end(table) || found->from != point) {
      to += point;
      return;
    }
    for (const char32_t part : found->to)
      if (part != 0) to += part;
  }

  template <size_t N>
  static bool in(const unicode::Range (&table)[N], char32_t point) {
    const auto* after =
        std::upper_bound(std::begin(table), std::end(table), point,
                         [](char32_t p, const unicode::Range& r) { return p < r.first; });
    return after != std::begin(table) && point <= std::prev(after)->last;
  }

  static bool is_space(char32_t p) {
    return (p >= 9 && p <= 13) || p == 32 || p == 0x85 || p == 0xA0 || p == 0x1680 ||
           (p >= 0x2000 && p <= 0x200A) || p == 0x2028 || p == 0x2029 || p == 0x202F ||
           p == 0x205F || p == 0x3000;
  }

  static bool is_chinese(char32_t p) {
    return (p >= 0x4E00 && p <= 0x9FFF) || (p >= 0x3400 && p <= 0x4DBF) ||
           (p >= 0x20000 && p <= 0x2A6DF) || (p >= 0x2A700 && p <= 0x2B73F) ||
           (p >= 0x2B740 && p <= 0x2B81F) || (p >= 0x2B920 && p <= 0x2CEAF) ||
           (p >= 0xF900 && p <= 0xFAFF) || (p >= 0x2F800 && p <= 0x2FA1F);
  }

  // Code points of UTF-8. Throws std::runtime_error for bytes that are none.
  static Text decode(const std::string& bytes) {
    static constexpr char32_t kSmallest[] = {0, 0x80, 0x800, 0x10000};
    Text text;
    for (size_t at = 0; at < bytes.size();) {
      const auto lead = static_cast<unsigned char>(bytes[at++]);
      const int more = lead < 0x80 ? 0 : lead < 0xE0 ? 1 : lead < 0xF0 ? 2 : 3;
      bool good = lead < 0x80 || (lead >= 0xC2 && lead < 0xF5);
      char32_t point = more == 0 ? lead : lead & (0x3F >> more);
      for (int i = 0; i < more && good; ++i, ++at) {
        good = at < bytes.size() && (bytes[at] & 0xC0) == 0x80;
        if (good) point = (point << 6) | (bytes[at] & 0x3F);
      }
      good = good && point >= kSmallest[more] && point < 0x110000;
      if (!good || (point >= 0xD800 && point < 0xE000))
        throw std::runtime_error("the text is not valid UTF-8");
      text += point;
    }
    return text;
  }
};
